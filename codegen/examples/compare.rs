//! Compares the facts of `spec/*.xml` with a published AMQP XML specification; `--help` has the
//! usage.

use std::{collections::BTreeSet, env, error::Error, fs, path::Path, process::ExitCode};

use roxmltree::{Document, Node};

const HELP: &str = "\
Compares this project's AMQP specification with a published one.

Usage: cargo run -p amqp-codegen --example compare -- PATH_TO_PUBLISHED_XML

The files of spec/ are merged, and the facts of the result are compared with those of the published
file, in both directions: ids, types, domains, names, order, flags, responses, chassis, assertions.
Texts (<doc>, <rule>, labels) are not facts; but each class, method, field, domain and constant of
spec/ must have a <doc>.

Prints a line for each difference and fault, then the counts.
Exit code: 0 if there are none, 1 if there are any, 2 if a file cannot be read.";

const ROOT: &str = "amqp";

/// The files of this project; a later one adds to the earlier.
const OURS: [&str; 2] = ["amqp0-9-1.xml", "rabbitmq.xml"];

/// Elements and attributes of the published schema that are prose.
const PROSE_ELEMENTS: [&str; 2] = ["doc", "rule"];
const PROSE_ATTRIBUTES: [&str; 2] = ["label", "comment"];

/// The additions to the schema: element, attribute, value. Any other attribute that the published
/// file lacks is a difference.
const OWN_ATTRIBUTES: [(&str, &str, &str); 4] = [
    ("field", "secret", "1"),
    ("field", "default", "1"),
    ("method", "sent-by", "client"),
    ("method", "sent-by", "server"),
];

/// The elements that a later file may repeat, to add to them.
const EXTENSIBLE: [&str; 3] = ["class", "method", "field"];

/// The elements that need a `<doc>`.
const DOCUMENTED: [&str; 5] = ["class", "method", "field", "domain", "constant"];

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let (Some(published), None) = (arguments.next(), arguments.next()) else {
        eprintln!("expected the path of a published specification, and nothing else\n\n{HELP}");
        return ExitCode::from(2);
    };
    if published == "--help" || published == "-h" {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match compare(Path::new(&published)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Prints the differences. Returns whether there are none.
fn compare(published: &Path) -> Result<bool, Box<dyn Error>> {
    let paths = OURS.map(|name| Path::new(env!("AMQP_SPEC")).join(name));
    let texts: Vec<_> = paths
        .iter()
        .map(|path| read(path))
        .collect::<Result<_, _>>()?;
    let documents: Vec<_> = paths
        .iter()
        .zip(&texts)
        .map(|(path, text)| parse(path, text))
        .collect::<Result<_, _>>()?;
    let roots: Vec<_> = documents.iter().map(Document::root_element).collect();
    let ours = Survey::of(&roots);

    let text = read(published)?;
    let document = parse(published, &text)?;
    let theirs = Survey::of(&[document.root_element()]);

    let missing: Vec<_> = theirs.facts.difference(&ours.facts).collect();
    let surplus: Vec<_> = ours.facts.difference(&theirs.facts).collect();
    for fact in &missing {
        println!("only published: {fact}");
    }
    for fact in &surplus {
        println!("only ours:      {fact}");
    }
    for fault in ours.faults.iter().chain(&ours.undocumented) {
        println!("fault:          {fault}");
    }
    let differences = missing.len() + surplus.len();
    println!(
        "checked {} docs: {} missing",
        ours.documented + ours.undocumented.len(),
        ours.undocumented.len()
    );
    println!("merged {} files: {} faults", OURS.len(), ours.faults.len());
    println!(
        "compared {} facts: {differences} differences",
        theirs.facts.union(&ours.facts).count()
    );
    Ok(differences == 0 && ours.faults.is_empty() && ours.undocumented.is_empty())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn parse<'a>(path: &Path, text: &'a str) -> Result<Document<'a>, String> {
    let document = Document::parse(text).map_err(|error| format!("{}: {error}", path.display()))?;
    match document.root_element().tag_name().name() {
        ROOT => Ok(document),
        other => Err(format!(
            "{}: the root element is <{other}>, not <{ROOT}>",
            path.display()
        )),
    }
}

/// The facts of a specification, a line of text each.
#[derive(Default)]
struct Survey {
    facts: BTreeSet<String>,
    /// Violations of the rules of merging.
    faults: Vec<String>,
    /// The number of elements with a `<doc>`.
    documented: usize,
    /// The elements that lack their `<doc>`.
    undocumented: Vec<String>,
}

impl Survey {
    fn of(roots: &[Node<'_, '_>]) -> Self {
        let mut survey = Self::default();
        survey.element(ROOT, roots);
        survey
    }

    /// Collects the facts of an element, given as its `parts`: the element in each of the files.
    fn element(&mut self, path: &str, parts: &[Node<'_, '_>]) {
        // The path of an element without a name has its facts already.
        let named = |part: &&Node<'_, '_>| path == ROOT || part.has_attribute("name");
        for part in parts.iter().filter(named) {
            for (name, value) in facts_in_attributes(*part) {
                self.facts.insert(format!("{path} {name}={value}"));
            }
        }
        self.doc(path, parts);

        let children = self.children(path, parts);
        for (index, child) in children.iter().enumerate() {
            let path = if path == ROOT {
                child.id.clone()
            } else {
                format!("{path} {}", child.id)
            };
            let before = children
                .iter()
                .take(index)
                .rfind(|other| other.tag == child.tag);
            // The order is a chain of neighbours: a missing sibling makes a difference to the next
            // one only.
            self.facts.insert(match before {
                Some(before) => format!("{path}: follows {}", before.id),
                None => format!("{path}: comes first"),
            });
            self.element(&path, &child.parts);
        }
    }

    /// Checks the text of an element that needs one.
    fn doc(&mut self, path: &str, parts: &[Node<'_, '_>]) {
        let mut tags = parts.iter().map(|part| part.tag_name().name());
        if !tags.any(|tag| DOCUMENTED.contains(&tag)) {
            return;
        }
        let children = parts.iter().flat_map(Node::children);
        let docs = children.filter(|child| child.has_tag_name("doc"));
        let texts: Vec<_> = docs
            .map(|doc| doc.text().unwrap_or_default().trim())
            .collect();
        if texts.is_empty() {
            self.undocumented.push(format!("{path}: no <doc>"));
        } else if texts.contains(&"") {
            self.undocumented.push(format!("{path}: an empty <doc>"));
        } else {
            self.documented += 1;
        }
    }

    /// Returns the child elements of all `parts`. Those with the same identity in different files
    /// are one child.
    fn children<'a, 'i>(&mut self, path: &str, parts: &[Node<'a, 'i>]) -> Vec<Child<'a, 'i>> {
        let mut children: Vec<Child<'a, 'i>> = Vec::new();
        for element in parts
            .iter()
            .flat_map(Node::children)
            .filter(Node::is_element)
        {
            let tag = element.tag_name().name();
            if PROSE_ELEMENTS.contains(&tag) {
                continue;
            }
            let id = identity(element);
            let Some(child) = children.iter_mut().find(|child| child.id == id) else {
                let parts = vec![element];
                children.push(Child { tag, id, parts });
                continue;
            };
            if child
                .parts
                .iter()
                .any(|part| part.parent() == element.parent())
            {
                self.faults.push(format!("{path}: {id} is twice in a file"));
            } else if !EXTENSIBLE.contains(&tag) {
                self.faults
                    .push(format!("{path}: {id} is in more than one file"));
            }
            child.parts.push(element);
        }
        children
    }
}

/// An element, and its part in each of the files.
struct Child<'a, 'i> {
    tag: &'a str,
    id: String,
    parts: Vec<Node<'a, 'i>>,
}

/// Returns the identity of an element among its siblings: its name or, if it has none, all of its
/// facts.
fn identity(element: Node<'_, '_>) -> String {
    let tag = element.tag_name().name();
    match element.attribute("name") {
        Some(name) => format!("{tag} {name}"),
        None => facts_in_attributes(element)
            .iter()
            .fold(tag.to_owned(), |id, (name, value)| {
                format!("{id} {name}={value}")
            }),
    }
}

/// Returns the attributes that are facts, sorted, without the name, which is in the identity.
fn facts_in_attributes<'a>(element: Node<'a, '_>) -> BTreeSet<(&'a str, &'a str)> {
    let tag = element.tag_name().name();
    let attributes = element
        .attributes()
        .map(|attribute| (attribute.name(), attribute.value()));
    attributes
        .filter(|(name, _)| *name != "name" && !PROSE_ATTRIBUTES.contains(name))
        .filter(|(name, value)| !OWN_ATTRIBUTES.contains(&(tag, *name, *value)))
        .collect()
}
