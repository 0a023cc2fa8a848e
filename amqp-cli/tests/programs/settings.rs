//! The sources of settings, and the texts about the program.

use std::fs;

use amqp_tests::harness::Outcome;

use crate::rig::{embedded, end, nowhere, program};

pub(crate) fn the_url_has_an_order_of_sources() -> Outcome {
    let (_broker, place) = embedded()?;
    let (good, bad) = (place.url, nowhere()?);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("amqp").join("config.toml");
    fs::create_dir(folder.path().join("amqp"))?;
    let ping = |arguments: &[&str], url: Option<&str>| {
        let mut command = program(&[&["ping"], arguments].concat());
        command.env("XDG_CONFIG_HOME", folder.path());
        if let Some(url) = url {
            command.env("AMQP_URL", url);
        }
        end(command, b"")
    };
    // An option, the variable, the file.
    fs::write(
        &file,
        format!("[default]\nurl = \"{good}\"\n[other]\nurl = \"{bad}\"\n"),
    )?;
    ping(&[], None)?.good()?;
    ping(&[], Some(&bad))?.fails(4, "could not reach")?;
    ping(&["-u", &good], Some(&bad))?.good()?;
    ping(&["--profile", "other"], Some(&good))?.fails(4, "could not reach")?;
    ping(&["--profile", "none"], None)?.fails(2, "config.toml has no profile [none]")?;
    // Options are parts of it.
    let port = bad.rsplit(':').next().unwrap_or_default();
    ping(&["--port", port], None)?.fails(4, "could not reach")?;
    let host = good.split(['@', '/']).nth(3).unwrap_or_default();
    ping(&["-u", &format!("{bad}/embedded"), "-s", host], None)?.good()?;
    // A file in which something is wrong, without its text in the error.
    for (text, error) in [
        (
            "[default]\nulr = \"amqp://me:hunter2@host\"\n",
            "line 2: unknown field `ulr`",
        ),
        ("[default]\nurl = \"amqp://me:hunter2@host\n", "line 2: "),
        ("[default]\nurl = 1\n", "line 2: expected a string"),
        (
            "url = \"amqp://me:hunter2@host\"\n",
            "line 1: expected a table, such as [default]",
        ),
        (
            "[default]\nheartbeat = \"hunter2\"\n",
            "line 2: expected u16",
        ),
        (
            "[default]\nurl = [\"hunter2\"]\n",
            "line 2: expected a string",
        ),
    ] {
        fs::write(&file, text)?;
        let ended = ping(&[], None)?;
        ended.fails(2, error)?;
        assert!(!ended.errors.contains("hunter2"), "{}", ended.errors);
    }
    let mut command = program(&["ping"]);
    command.env("AMQP_CONFIG", folder.path().join("none"));
    end(command, b"")?.fails(2, "cannot read")?;
    // An empty variable is as none.
    fs::write(&file, format!("[default]\nurl = \"{good}\"\n"))?;
    let mut command = program(&["ping"]);
    command.env("XDG_CONFIG_HOME", folder.path());
    for variable in ["AMQP_URL", "AMQP_PROFILE", "AMQP_CONFIG"] {
        command.env(variable, "");
    }
    end(command, b"")?.good()?;
    #[cfg(unix)]
    for variable in ["AMQP_URL", "AMQP_PROFILE"] {
        use std::os::unix::ffi::OsStrExt as _;
        let mut command = program(&["ping"]);
        command.env("XDG_CONFIG_HOME", folder.path());
        command.env(variable, std::ffi::OsStr::from_bytes(b"amqp://\xff"));
        end(command, b"")?.fails(2, &format!("{variable} is not UTF-8"))?;
    }
    Ok(())
}

pub(crate) fn completions_and_manuals_are_printed() -> Outcome {
    for (shell, text) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef amqp"),
        ("fish", "complete -c amqp"),
    ] {
        let printed = end(program(&["completions", shell]), b"")?.good()?;
        assert!(
            printed.contains(text) && printed.contains("publish"),
            "{shell}"
        );
    }
    let page = end(program(&["man"]), b"")?.good()?;
    assert!(
        page.contains(".TH amqp 1") && page.contains("Exit codes"),
        "{page}"
    );
    let folder = tempfile::tempdir()?;
    let path = folder.path().display().to_string();
    end(program(&["man", "--out", &path]), b"")?.good()?;
    for page in ["amqp.1", "amqp-publish.1", "amqp-declare-queue.1"] {
        let text = fs::read_to_string(folder.path().join(page))?;
        assert!(text.contains(".TH"), "{page}");
    }
    end(program(&["man", "--out", "/no/folder"]), b"")?.fails(2, "no such folder")?;
    let version = end(program(&["--version"]), b"")?.good()?;
    assert_eq!(version, format!("amqp {}\n", env!("CARGO_PKG_VERSION")));
    let help = end(program(&["publish", "--help"]), b"")?.good()?;
    assert!(
        help.contains("Examples:") && help.contains("AMQP_URL"),
        "{help}"
    );
    // The password of the variable is not in the help.
    let mut command = program(&["publish", "--help"]);
    command.env("AMQP_URL", "amqp://me:hunter2@host");
    assert!(!end(command, b"")?.good()?.contains("hunter2"));
    Ok(())
}
