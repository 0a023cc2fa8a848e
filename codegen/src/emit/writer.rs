//! A writer of indented lines.

/// The text so far. Nothing is fitted into a width: the copy in `tests/golden` is laid out by
/// rustfmt, and the compiler needs no layout.
#[derive(Debug, Default)]
pub(super) struct Writer {
    text: String,
    /// The number of brackets that are open.
    depth: usize,
}

impl Writer {
    pub(super) fn finish(self) -> String {
        self.text
    }

    /// Writes lines. Their own indentation is replaced by one level for each line above that ends
    /// with an opening bracket and whose closing bracket, the first of a line, is still to come.
    pub(super) fn lines(&mut self, lines: impl AsRef<str>) {
        for line in lines.as_ref().lines().map(str::trim) {
            if line.starts_with(['}', ')', ']']) {
                self.depth -= 1;
            }
            if !line.is_empty() {
                self.text.extend(std::iter::repeat_n("    ", self.depth));
                self.text.push_str(line);
            }
            self.text.push('\n');
            if line.ends_with(['{', '(', '[']) && !line.starts_with("//") {
                self.depth += 1;
            }
        }
    }

    /// Writes an empty line.
    pub(super) fn gap(&mut self) {
        self.text.push('\n');
    }

    /// Writes an empty line, then lines.
    pub(super) fn item(&mut self, lines: impl AsRef<str>) {
        self.gap();
        self.lines(lines);
    }

    /// Writes documentation: paragraphs of plain text with `code` in backticks, then a paragraph of
    /// markdown, which may be empty.
    pub(super) fn doc(&mut self, paragraphs: &[String], last: &str) {
        let paragraphs = paragraphs.iter().map(|paragraph| markdown(paragraph));
        let last = (!last.is_empty()).then(|| last.to_owned());
        for (number, paragraph) in paragraphs.chain(last).enumerate() {
            if number > 0 {
                self.lines("///");
            }
            for line in paragraph.lines() {
                self.lines(format!("/// {line}"));
            }
        }
    }
}

/// Returns a paragraph of plain text as markdown, line by line: with links, and with escapes except
/// in code.
fn markdown(paragraph: &str) -> String {
    // If the number of backticks is odd, all of them are literal.
    let closed = paragraph.matches('`').count().is_multiple_of(2);
    let mut code = false;
    let mut escaped = |word: &str| {
        if !code && (word.starts_with("http://") || word.starts_with("https://")) {
            let end = word.trim_end_matches(['.', ',', ';', ':', ')']).len();
            let (link, rest) = word.split_at(end);
            return format!("<{link}>{rest}");
        }
        let mut escaped = String::new();
        for c in word.chars() {
            match c {
                '`' if closed => code = !code,
                '`' | '\\' | '*' | '_' | '[' | ']' | '<' | '>' | '~' if !code => escaped.push('\\'),
                _ => {}
            }
            escaped.push(c);
        }
        escaped
    };
    let mut line = |line: &str| {
        let words: Vec<String> = line.split_whitespace().map(&mut escaped).collect();
        first_of_line(words.join(" "))
    };
    let lines: Vec<String> = paragraph.lines().map(&mut line).collect();
    lines.join("\n")
}

/// Escapes the beginning of a line that markdown would read as a list, a heading or a rule.
fn first_of_line(mut line: String) -> String {
    let word = line.split(' ').next().unwrap_or_default();
    let number = word.trim_end_matches(['.', ')']);
    if word.chars().all(|c| "-+=#".contains(c)) {
        line.insert(0, '\\');
    } else if (1..word.len()).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        line.insert(number.len(), '\\');
    }
    line
}
