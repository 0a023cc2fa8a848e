//! Chromium by its DevTools protocol, over two pipes: JSON messages that end with a zero byte.

use std::{
    cell::{Cell, RefCell},
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use serde_json::{Value, json};

use crate::rig::{Failure, Outcome, PATIENCE, until};

/// The path of a Chromium, if one is installed.
pub(crate) fn find() -> Option<PathBuf> {
    if let Some(path) = env::var_os("AMQP_BROWSER") {
        return Some(path.into());
    }
    let names = [
        "chromium-headless-shell",
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ];
    let path = env::var_os("PATH")?;
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let candidates = names
        .iter()
        .flat_map(|name| folders.iter().map(move |it| it.join(name)));
    candidates.into_iter().find(|path| path.is_file())
}

/// A Chromium without a window, ended when it is dropped.
pub(crate) struct Browser {
    child: Child,
    to_browser: RefCell<ChildStdin>,
    from_browser: Receiver<Value>,
    last: Cell<u64>,
    /// The events that were received.
    events: RefCell<Vec<Value>>,
    _profile: tempfile::TempDir,
}

/// A tab of a browser.
pub(crate) struct Tab<'a> {
    browser: &'a Browser,
    session: String,
}

impl Browser {
    pub(crate) fn start(path: &Path) -> Result<Self, Failure> {
        let profile = tempfile::tempdir()?;
        // The shell makes its own standard input and output the descriptors 3 and 4, which are
        // those of the protocol.
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null"#])
            .arg(path)
            .args(["--headless", "--remote-debugging-pipe", "--no-first-run"])
            // Root has no sandbox, and a container little shared memory.
            .args([
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--disable-gpu",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let to_browser = child.stdin.take().ok_or("no input")?;
        let from_browser = child.stdout.take().ok_or("no output")?;
        let (messages, received) = mpsc::channel();
        thread::spawn(move || {
            for message in BufReader::new(from_browser).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).unwrap_or_default();
                let _ended = messages.send(message);
            }
        });
        Ok(Self {
            child,
            to_browser: RefCell::new(to_browser),
            from_browser: received,
            last: Cell::new(0),
            events: RefCell::default(),
            _profile: profile,
        })
    }

    /// Opens a page in a tab.
    pub(crate) fn open(&self, url: &str) -> Result<Tab<'_>, Failure> {
        let target = self.call(None, "Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.call(None, "Target.attachToTarget", attach)?;
        let session = session["sessionId"]
            .as_str()
            .ok_or("no session")?
            .to_owned();
        let tab = Tab {
            browser: self,
            session,
        };
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            tab.call(domain, json!({}))?;
        }
        tab.size(1180, 900)?;
        tab.call("Page.navigate", json!({ "url": url }))?;
        Ok(tab)
    }

    /// Calls a method, and waits for its result.
    fn call(&self, session: Option<&str>, method: &str, params: Value) -> Result<Value, Failure> {
        let id = self.last.get() + 1;
        self.last.set(id);
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut to_browser = self.to_browser.borrow_mut();
        to_browser.write_all(format!("{message}\0").as_bytes())?;
        to_browser.flush()?;
        loop {
            let received = self.from_browser.recv_timeout(PATIENCE);
            let mut received = received.map_err(|error| format!("{method}: {error}"))?;
            if received["id"] != id {
                self.events.borrow_mut().push(received);
            } else if received["error"].is_null() {
                return Ok(received["result"].take());
            } else {
                return Err(format!("{method}: {}", received["error"]).into());
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _closed = self.call(None, "Browser.close", json!({}));
        let ended = until("the end of the browser", || {
            Ok(self.child.try_wait()?.map(drop))
        });
        if ended.is_err() {
            let _killed = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

impl Tab<'_> {
    fn call(&self, method: &str, params: Value) -> Result<Value, Failure> {
        self.browser.call(Some(&self.session), method, params)
    }

    /// Evaluates an expression of JavaScript, and returns its value.
    pub(crate) fn evaluate(&self, expression: &str) -> Result<Value, Failure> {
        let params = json!({ "expression": expression, "returnByValue": true, "replMode": true });
        let mut result = self.call("Runtime.evaluate", params)?;
        if result["exceptionDetails"].is_null() {
            Ok(result["result"]["value"].take())
        } else {
            let thrown = &result["exceptionDetails"]["exception"]["description"];
            Err(format!("{expression}: {thrown}").into())
        }
    }

    /// The text of an element as it is shown; empty without one.
    pub(crate) fn text(&self, selector: &str) -> Result<String, Failure> {
        let selector = Value::from(selector);
        let text = self.evaluate(&format!(
            "document.querySelector({selector})?.innerText ?? ''"
        ))?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    pub(crate) fn click(&self, selector: &str) -> Outcome {
        let selector = Value::from(selector);
        until(&format!("something to click at {selector}"), || {
            let click =
                format!("{{ const it = document.querySelector({selector}); it?.click(); !!it }}");
            Ok((self.evaluate(&click)? == true).then_some(()))
        })
    }

    /// The exceptions of the page, and the complaints about it in the log of the browser but for
    /// those of the network.
    pub(crate) fn complaints(&self) -> Result<Vec<String>, Failure> {
        self.evaluate("0")?;
        let events = self.browser.events.borrow();
        let complaints = events
            .iter()
            .filter(|event| match event["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Log.entryAdded") => event["params"]["entry"]["source"] != "network",
                _ => false,
            });
        Ok(complaints.map(|it| it["params"].to_string()).collect())
    }

    fn size(&self, width: u32, height: u32) -> Outcome {
        let params = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", params)
            .map(drop)
    }

    /// Makes it as wide as a phone.
    pub(crate) fn phone(&self) -> Outcome {
        self.size(390, 844)
    }

    /// Prefers dark colours.
    pub(crate) fn dark(&self) -> Outcome {
        let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
        self.call("Emulation.setEmulatedMedia", dark).map(drop)
    }

    /// Keeps a picture of the whole page, if pictures are wanted.
    pub(crate) fn picture(&self, name: &str) -> Outcome {
        let Some(folder) = env::var_os("AMQP_PAGE_PICTURES") else {
            return Ok(());
        };
        let params = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", params)?;
        let encoded = picture["data"].as_str().ok_or("no picture")?;
        let path = Path::new(&folder).join(format!("page-{name}.png"));
        Ok(fs::write(path, decoded(encoded))?)
    }
}

/// Decodes base64.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for value in text.bytes().filter_map(digit) {
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
