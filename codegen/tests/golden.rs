//! The generated source, compared with a copy that is kept in the repository, so that each change
//! of it can be read; and that it is formatted as rustfmt would format it.

use std::{
    error::Error,
    fmt::Write as _,
    fs,
    io::{ErrorKind, Write as _},
    process::{Command, Stdio},
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/protocol.rs");
const REFRESH: &str = "UPDATE_GOLDEN=1 cargo test -p amqp-codegen --test golden";

#[test]
fn golden_copy_is_fresh() -> Result<(), Box<dyn Error>> {
    let generated = amqp_codegen::generate()?;
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(GOLDEN, generated)?;
        return Ok(());
    }
    let golden = fs::read_to_string(GOLDEN)?;
    if let Some(difference) = difference(&golden, &generated) {
        panic!("{GOLDEN} is not what is generated, {difference}\nTo refresh it: {REFRESH}");
    }
    Ok(())
}

/// The first lines that differ.
fn difference(expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
    let lines = expected.lines().zip(found.lines());
    let same = lines
        .take_while(|(expected, found)| expected == found)
        .count();
    let mut report = format!("from line {} on:", same + 1);
    for (sign, text) in [('-', expected), ('+', found)] {
        for line in text.lines().skip(same).take(5) {
            let _ = write!(report, "\n{sign} {line}");
        }
    }
    Some(report)
}

#[test]
fn generating_again_gives_the_same() -> Result<(), Box<dyn Error>> {
    assert_eq!(amqp_codegen::generate()?, amqp_codegen::generate()?);
    Ok(())
}

#[test]
fn rustfmt_has_nothing_to_change() -> Result<(), Box<dyn Error>> {
    for generated in [
        amqp_codegen::generate()?,
        amqp_codegen::generate_from(&[&unusual()])?,
    ] {
        let Some(formatted) = rustfmt(&generated)? else {
            eprintln!("skipped: there is no rustfmt here");
            return Ok(());
        };
        if let Some(difference) = difference(&formatted, &generated) {
            panic!("rustfmt would change the source, {difference}");
        }
    }
    Ok(())
}

/// A specification with what the real one lacks: each type in each place, long names, several words
/// of property flags.
fn unusual() -> String {
    const TYPES: [&str; 9] = [
        "bit",
        "octet",
        "short",
        "long",
        "longlong",
        "shortstr",
        "longstr",
        "timestamp",
        "table",
    ];
    const LONG: &str = "the-name-of-something";
    let fields = |prefix: &str, attributes: &str, types: &[&str]| -> String {
        let field =
            |kind| format!("<field name=\"{prefix}-{kind}\" type=\"{kind}\" {attributes}/>");
        types.iter().map(field).collect()
    };
    let method = |name: &str, index: u8, attributes: &str, elements: &str| {
        format!("<method name=\"{name}\" index=\"{index}\" {attributes}>{elements}</method>")
    };
    let code = "<field name=\"code\" domain=\"reply-code\"/>";
    let secret = "<field name=\"secret\" type=\"longstr\" secret=\"1\"/>";
    let set = "<field name=\"set\" type=\"bit\" default=\"1\"/>";
    let client = "sent-by=\"client\"";

    let mut classes = "<class name=\"types\" index=\"1\">".to_owned();
    let all =
        fields("a", "", &TYPES) + &fields("r", "reserved=\"1\"", &TYPES) + code + secret + set;
    classes += &method("all", 1, client, &all);
    classes += &method("tables", 2, client, &fields("a", "", &["table"]));
    for (index, len) in [(3, 7), (4, 8), (5, 9)] {
        // struct literals around the longest that stands on one line
        let name = "f".repeat(len);
        classes += &method(&name, index, client, &fields(&name, "", &["octet", "long"]));
    }

    classes += "</class><class name=\"properties\" index=\"3\">";
    for prefix in ["a", "b", "c", "d"] {
        let attributes = if prefix == "b" { "reserved=\"1\"" } else { "" };
        classes += &fields(prefix, attributes, &TYPES[1..]);
    }
    classes += code;
    classes += &method("publish", 1, "sent-by=\"server\" content=\"1\"", "");

    classes += "</class><class name=\"names\" index=\"5\">";
    let mut request = fields(LONG, "", &["shortstr", "table", "longstr", "bit"]);
    for index in 1..8 {
        let answer = format!("answer-{index}");
        request += &format!("<response name=\"{answer}\"/>");
        classes += &method(&answer, index, "sent-by=\"server\"", "");
    }
    classes += &method(LONG, 9, "sent-by=\"client\" synchronous=\"1\"", &request);
    format!(
        "<amqp major=\"0\" minor=\"9\" revision=\"1\" port=\"5672\">\
         <domain name=\"reply-code\" type=\"short\"/>{classes}</class></amqp>"
    )
}

/// A source as rustfmt formats it; `None` if there is no rustfmt.
fn rustfmt(source: &str) -> Result<Option<String>, Box<dyn Error>> {
    let rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024", "--style-edition", "2024"])
        .args([
            "--config",
            "use_field_init_shorthand=true",
            "--emit",
            "stdout",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut rustfmt = match rustfmt {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        rustfmt => rustfmt?,
    };
    let mut input = rustfmt.stdin.take().ok_or("rustfmt without input")?;
    input.write_all(source.as_bytes())?;
    drop(input);
    let output = rustfmt.wait_with_output()?;
    if !output.status.success() {
        return Err("rustfmt failed".into());
    }
    Ok(Some(String::from_utf8(output.stdout)?))
}
