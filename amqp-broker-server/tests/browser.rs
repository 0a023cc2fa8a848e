//! The page in a real browser: Chromium without a window, driven by its DevTools protocol.
//!
//! Where no Chromium is installed the tests are ignored by name; with `AMQP_REQUIRE_BROWSER=1` they
//! fail. `AMQP_BROWSER` is the path of another one. With `AMQP_PAGE_PICTURES=FOLDER` each step is
//! kept there as a picture.

mod devtools;
mod rig;

use std::{convert::Infallible, env, process::ExitCode, time::Duration};

use amqp_tokio::{
    Connection, connect,
    protocol::{basic, exchange, queue},
};
use libtest_mimic::{Arguments, Trial};
use tokio::{runtime::Runtime, time};

use crate::{
    devtools::{Browser, Tab},
    rig::{Failure, Outcome, Program, until},
};

/// The name of a queue that is harmful where names become HTML.
const HOSTILE: &str = "<script>document.title='broken'</script><img src=x onerror=alert(1)>";

/// A test by its name.
type Test = (&'static str, fn(&Browser) -> Outcome);

const TESTS: [Test; 4] = [
    ("an_empty_broker_says_how_to_begin", empty),
    ("a_busy_broker_is_shown_as_it_is", busy),
    (
        "a_broker_that_has_stopped_is_said_to_be_unreachable",
        stopped,
    ),
    ("many_queues_come_in_parts", many),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let browser = devtools::find();
    let required = env::var_os("AMQP_REQUIRE_BROWSER").is_some_and(|value| value == "1");
    let is_ignored = browser.is_none() && !required;
    let trials = TESTS.map(|(name, run)| {
        let browser = browser.clone();
        let run = move || {
            let path = browser.ok_or("no Chromium is installed")?;
            Ok(run(&Browser::start(&path)?)?)
        };
        Trial::test(name, run).with_ignored_flag(is_ignored)
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

fn start() -> Result<Program, Failure> {
    Program::start(&[
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--memory",
        "64MiB",
    ])
}

fn opened<'a>(browser: &'a Browser, program: &Program) -> Result<Tab<'a>, Failure> {
    let tab = browser.open(program.page())?;
    until_text(&tab, "#state-text", "Live")?;
    Ok(tab)
}

/// Waits until an element has a text.
fn until_text(tab: &Tab<'_>, selector: &str, text: &str) -> Outcome {
    let mut last = String::new();
    let found = until(&format!("{text:?} in {selector}"), || {
        last = tab.text(selector)?;
        Ok(last.contains(text).then_some(()))
    });
    found.map_err(|error| format!("{error}, but {last:?}").into())
}

/// Nothing has failed in the page: no exception, nothing that its policy refuses.
fn unharmed(tab: &Tab<'_>) -> Outcome {
    assert_eq!(tab.evaluate("document.title")?, "amqp-broker");
    assert_eq!(tab.complaints()?, Vec::<String>::new());
    Ok(())
}

fn empty(browser: &Browser) -> Outcome {
    let program = start()?;
    let tab = opened(browser, &program)?;
    until_text(&tab, "#empty", "No queues yet")?;
    until_text(&tab, "#empty", program.address(0))?;
    tab.picture("empty")?;
    tab.click("#tab-connections")?;
    until_text(&tab, "#empty", "No connections")?;
    tab.click("#tab-exchanges")?;
    until_text(&tab, "tbody", "amq.topic")?;
    tab.dark()?;
    tab.picture("dark-exchanges")?;
    unharmed(&tab)
}

fn busy(browser: &Browser) -> Outcome {
    let program = start()?;
    let runtime = Runtime::new()?;
    let connection = runtime.block_on(load(program.address(0)))?;
    let tab = opened(browser, &program)?;
    until_text(&tab, "tbody", "orders")?;
    until_text(&tab, "tbody", HOSTILE)?;
    until("rates", || {
        let rate =
            tab.evaluate("document.querySelector('.line.published').getAttribute('points')")?;
        Ok((rate.as_str().is_some_and(|it| it.split(' ').count() > 2)).then_some(()))
    })?;
    // Long enough for a plot, where a picture is wanted.
    if env::var_os("AMQP_PAGE_PICTURES").is_some() {
        std::thread::sleep(Duration::from_secs(45));
    }
    tab.picture("load")?;

    // Sorted by messages, and filtered by name.
    tab.click("thead th:nth-child(2) button")?;
    until_text(&tab, "tbody tr:first-child", "backlog")?;
    assert_eq!(
        tab.evaluate("document.querySelectorAll('thead th')[1].ariaSort")?,
        "descending"
    );
    tab.evaluate(
        "const f = document.querySelector('#filter'); f.value = 'SCRIPT'; \
                  f.dispatchEvent(new Event('input'))",
    )?;
    until("one queue", || {
        let rows = tab.evaluate("document.querySelectorAll('tbody tr').length")?;
        Ok((rows == 1).then_some(()))
    })?;

    // Its messages are looked at, and stay.
    tab.click("tbody button")?;
    until_text(&tab, "#dialog-title", HOSTILE)?;
    until_text(&tab, "#dialog-body pre", "<b>not bold</b>")?;
    until_text(&tab, "#dialog-body", "text/html")?;
    tab.picture("messages")?;
    tab.evaluate("document.querySelector('#dialog').close()")?;
    let queues = program.json("/api/queues?contains=script")?;
    assert_eq!(queues["queues"][0]["ready"], 3);
    assert_eq!(queues["queues"][0]["messages"]["delivered"], 0);

    tab.click("#tab-connections")?;
    tab.evaluate("f.value = ''; f.dispatchEvent(new Event('input'))")?;
    until_text(&tab, "tbody", "guest")?;
    until_text(&tab, "tbody", "127.0.0.1:")?;
    tab.dark()?;
    tab.picture("dark-connections")?;
    tab.click("#tab-exchanges")?;
    until_text(&tab, "tbody", "events")?;
    tab.evaluate("[...document.querySelectorAll('tbody button')].at(-1).click()")?;
    until_text(&tab, "#dialog-body", "order.#")?;
    tab.evaluate("document.querySelector('#dialog').close()")?;

    tab.click("#tab-queues")?;
    until_text(&tab, "tbody", "orders")?;
    tab.picture("dark-load")?;
    tab.phone()?;
    until("a page as wide as a phone", || {
        let wide = tab.evaluate("document.documentElement.scrollWidth <= innerWidth")?;
        Ok((wide == true).then_some(()))
    })?;
    tab.picture("phone")?;

    // The memory alarm is a banner.
    // It never ends, as the connection is blocked.
    let filling = runtime.spawn(async move { fill(&connection).await });
    until_text(&tab, "#alarm", "Memory alarm")?;
    assert!(!filling.is_finished(), "it is not blocked");
    tab.picture("phone-alarm")?;
    unharmed(&tab)
}

fn stopped(browser: &Browser) -> Outcome {
    let mut program = start()?;
    let runtime = Runtime::new()?;
    let _connection = runtime.block_on(load(program.address(0)))?;
    let tab = opened(browser, &program)?;
    until_text(&tab, "tbody", "orders")?;
    if env::var_os("AMQP_PAGE_PICTURES").is_some() {
        std::thread::sleep(Duration::from_secs(12));
    }
    let port = program.page_port().to_string();
    program.kill()?;
    until_text(&tab, "#unreachable", "cannot be reached")?;
    until_text(&tab, "#state-text", "Unreachable")?;
    // The last numbers stay, with their age.
    until_text(&tab, "#unreachable", " s old")?;
    until_text(&tab, "tbody", "orders")?;
    tab.picture("unreachable")?;
    drop(program);
    let at = format!("127.0.0.1:{port}");
    let _program = Program::start(&["--listen", "127.0.0.1:0", "--http", &at])?;
    until_text(&tab, "#state-text", "Live")?;
    assert_eq!(tab.text("#unreachable:not([hidden])")?, "");
    until_text(&tab, "#empty", "No queues yet")?;
    unharmed(&tab)
}

fn many(browser: &Browser) -> Outcome {
    let program = start()?;
    let _connection = Runtime::new()?.block_on(async {
        let connection = connect(program.address(0)).await?;
        let channel = connection.open_channel().await?;
        for number in 0..620 {
            let declare = queue::Declare::default().queue(format!("queue-{number:03}"));
            channel.call(declare).await?;
        }
        Ok::<_, Failure>(connection)
    })?;
    let tab = opened(browser, &program)?;
    until_text(&tab, "#more", "500 of 620 queues")?;
    tab.click("#more button")?;
    until_text(&tab, "tbody tr:first-child", "queue-500")?;
    until_text(&tab, "#more", "120 of 620 queues")?;
    tab.click("#more button")?;
    until_text(&tab, "tbody tr:first-child", "queue-000")?;
    unharmed(&tab)
}

/// Queues of all kinds, with a publisher and a consumer that go on.
async fn load(address: &str) -> Result<Connection, Failure> {
    let connection = connect(address).await?;
    let channel = connection.open_channel().await?;
    for name in ["orders", "backlog", "invoices", HOSTILE] {
        channel.call(queue::Declare::default().queue(name)).await?;
    }
    let reply = queue::Declare::default()
        .exclusive(true)
        .auto_delete(true)
        .durable(false);
    channel.call(reply).await?;
    let events = exchange::Declare::default()
        .exchange("events")
        .kind("topic");
    channel.call(events).await?;
    let bind = queue::Bind::default().queue("orders").exchange("events");
    channel.call(bind.routing_key("order.#")).await?;
    let html = basic::Properties::default().content_type("text/html");
    let to_hostile = basic::Publish::default().routing_key(HOSTILE);
    for body in [
        "<b>not bold</b>",
        "{\"id\": 17, \"total\": \"12.50 €\"}",
        "third",
    ] {
        channel.publish(&to_hostile, &html, body).await?;
    }
    channel
        .publish(&to_hostile.routing_key("backlog"), &html, "x".repeat(5000))
        .await?;
    connection.flush().await?;

    let publishing = connection.open_channel().await?;
    tokio::spawn(async move {
        let to_orders = basic::Publish::default()
            .exchange("events")
            .routing_key("order.new");
        let to_backlog = basic::Publish::default().routing_key("backlog");
        let plain = basic::Properties::default();
        for turn in 0_u32.. {
            // A wave, so that the plot has a form.
            let many = 40 + (30.0 * f64::from(turn).mul_add(0.02, 0.0).sin()) as u32;
            for number in 0..many {
                let body = format!("{{\"order\": {turn}{number:02}}}");
                publishing.publish(&to_orders, &plain, body).await?;
            }
            publishing.publish(&to_backlog, &plain, "later").await?;
            time::sleep(Duration::from_millis(100)).await;
        }
        Ok::<_, Failure>(())
    });
    let mut consumer = connection
        .open_channel()
        .await?
        .consume(basic::Consume::default().queue("orders"))
        .await?;
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            let _acked = delivery.ack();
        }
    });
    Ok(connection)
}

/// Publishes without an end. The broker blocks it.
async fn fill(connection: &Connection) -> Result<Infallible, Failure> {
    let channel = connection.open_channel().await?;
    let to_invoices = basic::Publish::default().routing_key("invoices");
    loop {
        let body = vec![0; 1 << 20];
        channel
            .publish(&to_invoices, &basic::Properties::default(), body)
            .await?;
    }
}
