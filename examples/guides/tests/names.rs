//! The pages for users of other clients: each name in the second column of their tables is public.

use std::{collections::BTreeSet, error::Error, fs, path::Path};

/// Words that are no names of the interface: of the language, of the wire, and of packages.
const OTHERS: [&str; 7] = [
    "true", "false", "await", "println", "amqp", "amqps", "blocking",
];

/// The words of a text: letters, digits and underscores, beginning with a letter.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|it: char| !it.is_alphanumeric() && it != '_')
        .filter(|it| it.len() > 1 && it.starts_with(char::is_alphabetic))
}

#[test]
fn each_name_for_users_of_other_clients_is_public() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut public = String::new();
    for entry in fs::read_dir(root.join("api"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "txt") {
            public.push_str(&fs::read_to_string(path)?);
        }
    }
    let public: BTreeSet<&str> = words(&public).chain(OTHERS).collect();
    for page in ["lapin", "amqprs"] {
        let text = fs::read_to_string(root.join(format!("book/src/guides/{page}.md")))?;
        let mut count = 0;
        let rows = text.lines().filter(|it| it.starts_with("| "));
        for row in rows.filter(|it| !it.contains("| here |")) {
            let ours = row.split(" | ").nth(1).ok_or("one column")?;
            for code in ours.split('`').skip(1).step_by(2) {
                // Without the texts in it.
                let code: String = code.split('"').step_by(2).collect();
                for name in words(&code) {
                    count += 1;
                    assert!(public.contains(name), "{page}: {name} in {row}");
                }
            }
        }
        assert!(count > 50, "{page}: {count} names are read");
    }
    Ok(())
}
