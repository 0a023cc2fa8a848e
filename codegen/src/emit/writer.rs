//! A writer of indented text, in the format of rustfmt.

use std::collections::BTreeSet;

/// The maximum length of a line.
const MAX_WIDTH: usize = 100;
/// The maximum length of a struct literal on one line, between its braces.
const STRUCT_WIDTH: usize = 18;
/// The maximum length of an array on one line, between its brackets.
const ARRAY_WIDTH: usize = 60;

#[derive(Debug)]
pub(super) struct Writer {
    text: String,
    depth: usize,
}

impl Writer {
    pub(super) fn new(depth: usize) -> Self {
        Self {
            text: String::new(),
            depth,
        }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Writes an indented line.
    pub(super) fn line(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        self.text.extend(std::iter::repeat_n(' ', 4 * self.depth));
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Writes an empty line, unless it would be the first line of the text or of a block.
    pub(super) fn gap(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("{\n") {
            self.text.push('\n');
        }
    }

    /// Writes a head and a body in braces.
    pub(super) fn block(&mut self, head: impl AsRef<str>, body: impl FnOnce(&mut Self)) {
        self.enclosed(&format!("{} {{", head.as_ref()), "}", body);
    }

    /// Writes an opening line, an indented body and a closing line.
    pub(super) fn enclosed(&mut self, open: &str, close: &str, body: impl FnOnce(&mut Self)) {
        self.line(open);
        self.depth += 1;
        body(self);
        self.depth -= 1;
        self.line(close);
    }

    /// Writes a function. Its signature has three parts: up to the name and the generics, the
    /// arguments, and the rest.
    pub(super) fn function(
        &mut self,
        (head, arguments, tail): (&str, &[&str], &str),
        body: impl FnOnce(&mut Self),
    ) {
        let line = format!("{head}({}){tail} {{", arguments.join(", "));
        if self.fits(&line) {
            self.enclosed(&line, "}", body);
        } else {
            self.arguments(head, arguments);
            self.enclosed(&format!("){tail} {{"), "}", body);
        }
    }

    /// Writes a function like [`function`](Self::function), with bounds in a `where` clause.
    pub(super) fn bounded_function(
        &mut self,
        (head, arguments, tail): (&str, &[&str], &str),
        bounds: &[&str],
        body: impl FnOnce(&mut Self),
    ) {
        let line = format!("{head}({}){tail}", arguments.join(", "));
        if self.fits(&line) {
            self.line(line);
        } else {
            self.arguments(head, arguments);
            self.line(format!("){tail}"));
        }
        self.line("where");
        self.depth += 1;
        for bound in bounds {
            self.line(format!("{bound},"));
        }
        self.depth -= 1;
        self.enclosed("{", "}", body);
    }

    fn arguments(&mut self, head: &str, arguments: &[&str]) {
        self.line(format!("{head}("));
        self.depth += 1;
        for argument in arguments {
            self.line(format!("{argument},"));
        }
        self.depth -= 1;
    }

    /// Writes a match arm.
    pub(super) fn arm(&mut self, pattern: &str, body: &str) {
        let line = format!("{pattern} => {body},");
        if self.fits(&line) {
            self.line(line);
        } else {
            self.block(format!("{pattern} =>"), |w| w.line(body));
        }
    }

    /// Writes an assignment or a binding.
    pub(super) fn assign(&mut self, left: &str, right: &str) {
        let line = format!("{left} = {right};");
        if self.fits(&line) {
            self.line(line);
        } else {
            self.line(format!("{left} ="));
            self.line(format!("    {right};"));
        }
    }

    /// Writes a struct literal, with the text before and after its braces.
    pub(super) fn literal(&mut self, before: &str, fields: &[String], after: &str) {
        let inner = fields.join(", ");
        let line = format!("{before} {{ {inner} }}{after}");
        if inner.len() <= STRUCT_WIDTH && self.fits(&line) {
            self.line(line);
            return;
        }
        self.enclosed(&format!("{before} {{"), &format!("}}{after}"), |w| {
            for field in fields {
                w.line(format!("{field},"));
            }
        });
    }

    /// Writes an array, with the text before and after its brackets.
    pub(super) fn array(&mut self, before: &str, items: &[String], after: &str) {
        let inner = items.join(", ");
        let line = format!("{before}[{inner}]{after}");
        if inner.len() <= ARRAY_WIDTH && self.fits(&line) {
            self.line(line);
            return;
        }
        self.enclosed(&format!("{before}["), &format!("]{after}"), |w| {
            for item in items {
                w.line(format!("{item},"));
            }
        });
    }

    /// Writes a sum as the last expression of a block. The constant term, if there is one, is the
    /// first.
    pub(super) fn sum(&mut self, terms: &[String]) {
        let line = terms.join(" + ");
        if self.fits(&line) {
            self.line(line);
            return;
        }
        // rustfmt does not leave a first term this short on a line of its own.
        let together = if terms.first().is_some_and(|first| first.len() <= 4) {
            2
        } else {
            1
        };
        let (first, rest) = terms.split_at(together.min(terms.len()));
        self.line(first.join(" + "));
        self.depth += 1;
        for term in rest {
            self.line(format!("+ {term}"));
        }
        self.depth -= 1;
    }

    /// Writes the text of another writer after the imports that it uses, chosen from `groups` of
    /// paths and names.
    pub(super) fn with_imports(&mut self, body: &Self, groups: &[&[(&str, &[&str])]]) {
        let words: BTreeSet<&str> = body
            .text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
            .collect();
        for group in groups {
            self.gap();
            for (path, names) in *group {
                let used: Vec<&str> = names
                    .iter()
                    .copied()
                    .filter(|name| words.contains(name))
                    .collect();
                match used.as_slice() {
                    [] => {}
                    [name] => self.line(format!("use {path}::{name};")),
                    _ => self.import_list(path, &used),
                }
            }
        }
        self.gap();
        self.text.push_str(&body.text);
    }

    fn import_list(&mut self, path: &str, names: &[&str]) {
        let line = format!("use {path}::{{{}}};", names.join(", "));
        // rustfmt leaves the last column empty here, and in the lines of a longer list.
        if self.fits(&format!("{line} ")) {
            self.line(line);
            return;
        }
        let names = names.iter().map(|name| format!("{name},"));
        self.enclosed(&format!("use {path}::{{"), "};", |w| {
            w.fill("", names, MAX_WIDTH - 1);
        });
    }

    /// Writes documentation from paragraphs of plain text with `code` in backticks.
    pub(super) fn doc(&mut self, paragraphs: &[String]) {
        for (number, paragraph) in paragraphs.iter().enumerate() {
            if number > 0 {
                self.line("///");
            }
            self.fill("/// ", words(paragraph), MAX_WIDTH);
        }
    }

    /// Writes one paragraph of documentation in markdown, without escaping it.
    pub(super) fn note(&mut self, markdown: &str) {
        let words = markdown.split_whitespace().map(str::to_owned);
        self.fill("/// ", words, MAX_WIDTH);
    }

    /// Writes words on as few lines as possible, each line with a prefix.
    fn fill(&mut self, prefix: &str, words: impl IntoIterator<Item = String>, width: usize) {
        let mut line = String::new();
        for word in words {
            let longer =
                4 * self.depth + prefix.len() + line.chars().count() + 1 + word.chars().count();
            if line.is_empty() {
                line = first_of_line(word);
            } else if longer <= width {
                line.push(' ');
                line.push_str(&word);
            } else {
                self.line(format!("{prefix}{line}"));
                line = first_of_line(word);
            }
        }
        if !line.is_empty() {
            self.line(format!("{prefix}{line}"));
        }
    }

    fn fits(&self, line: &str) -> bool {
        4 * self.depth + line.chars().count() <= MAX_WIDTH
    }
}

/// Splits a paragraph into words, with markdown escaped except in code.
///
/// Code in backticks is one word, so that it is not broken across lines.
fn words(paragraph: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut code = false;
    // If the number of backticks is odd, all of them are literal.
    let closed = paragraph.matches('`').count().is_multiple_of(2);
    for c in paragraph.chars() {
        match c {
            '`' if closed => {
                code = !code;
                word.push(c);
            }
            ' ' if !code => words.push(std::mem::take(&mut word)),
            '`' | '\\' | '*' | '_' | '[' | ']' | '<' | '>' | '~' if !code => {
                word.push('\\');
                word.push(c);
            }
            _ => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    for word in &mut words {
        if word.starts_with("http://") || word.starts_with("https://") {
            let end = word.trim_end_matches(['.', ',', ';', ':', ')']).len();
            let rest = word.split_off(end);
            *word = format!("<{}>{rest}", word.replace('\\', ""));
        }
    }
    words
}

/// Escapes the first word of a line that markdown would read as a list, a heading or a rule.
fn first_of_line(mut word: String) -> String {
    let number = word.trim_end_matches(['.', ')']).len();
    if word.chars().all(|c| "-+=#".contains(c)) {
        word.insert(0, '\\');
    } else if (1..word.len()).contains(&number)
        && word.bytes().take(number).all(|byte| byte.is_ascii_digit())
    {
        word.insert(number, '\\');
    }
    word
}
