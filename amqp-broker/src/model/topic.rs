//! Topic patterns: words between dots, `*` for one word and `#` for any number of words (section
//! 3.1.3.3 of the specification).

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

/// Patterns and their targets, as a trie of words.
///
/// A lookup advances word by word with the set of all reachable nodes, so that its cost is bounded
/// by words times nodes for any patterns.
#[derive(Debug)]
pub(crate) struct Trie<T> {
    /// The nodes. The root is always at index 0.
    nodes: Vec<Node<T>>,
    /// The indices of unused nodes.
    free: Vec<usize>,
}

#[derive(Debug)]
struct Node<T> {
    children: BTreeMap<Box<str>, usize>,
    targets: Vec<T>,
    /// `true` if the word that leads to the node is `#`.
    any: bool,
}

impl<T> Node<T> {
    const fn new(any: bool) -> Self {
        Self {
            children: BTreeMap::new(),
            targets: Vec::new(),
            any,
        }
    }
}

const ROOT: usize = 0;
const ONE: &str = "*";
const ANY: &str = "#";

impl<T: Clone + Ord> Trie<T> {
    pub(crate) fn new() -> Self {
        Self {
            nodes: Vec::from([Node::new(false)]),
            free: Vec::new(),
        }
    }

    /// Adds a pattern. A pair may be added more than once.
    pub(crate) fn insert(&mut self, pattern: &str, target: T) {
        let mut at = ROOT;
        for word in words(pattern) {
            let known = self
                .nodes
                .get(at)
                .and_then(|node| node.children.get(word))
                .copied();
            at = match known {
                Some(child) => child,
                None => {
                    let child = self.add_node(word == ANY);
                    if let Some(node) = self.nodes.get_mut(at) {
                        node.children.insert(word.into(), child);
                    }
                    child
                }
            };
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.targets.push(target);
        }
    }

    /// Removes a pattern once.
    pub(crate) fn remove(&mut self, pattern: &str, target: &T) {
        let mut path = Vec::from([ROOT]);
        let mut at = ROOT;
        for word in words(pattern) {
            let child = self.nodes.get(at).and_then(|node| node.children.get(word));
            let Some(&child) = child else {
                return;
            };
            at = child;
            path.push(at);
        }
        if let Some(node) = self.nodes.get_mut(at)
            && let Some(index) = node.targets.iter().position(|known| known == target)
        {
            node.targets.remove(index);
        }
        // Removes the nodes that lead to no target, from the end of the pattern to its start.
        let mut words: Vec<&str> = words(pattern).collect();
        while let (Some(last), Some(word)) = (path.pop(), words.pop()) {
            let empty = self
                .nodes
                .get(last)
                .is_some_and(|node| node.children.is_empty() && node.targets.is_empty());
            let parent = path.last().and_then(|&parent| self.nodes.get_mut(parent));
            let (true, Some(parent)) = (empty, parent) else {
                return;
            };
            parent.children.remove(word);
            self.free.push(last);
        }
    }

    /// Collects the targets of the patterns that match a key.
    pub(crate) fn matches(&self, key: &str, found: &mut BTreeSet<T>) {
        let mut reached = BTreeSet::new();
        self.reach(ROOT, &mut reached);
        for word in words(key) {
            let mut next = BTreeSet::new();
            for &at in &reached {
                let Some(node) = self.nodes.get(at) else {
                    continue;
                };
                if node.any {
                    self.reach(at, &mut next);
                }
                for step in [word, ONE] {
                    if let Some(&child) = node.children.get(step) {
                        self.reach(child, &mut next);
                    }
                }
            }
            reached = next;
        }
        for at in reached {
            if let Some(node) = self.nodes.get(at) {
                found.extend(node.targets.iter().cloned());
            }
        }
    }

    /// Adds a node to the reached ones, and all nodes that follow it by `#`, which also matches no
    /// word.
    fn reach(&self, mut at: usize, reached: &mut BTreeSet<usize>) {
        while reached.insert(at) {
            let any = self.nodes.get(at).and_then(|node| node.children.get(ANY));
            let Some(&any) = any else {
                return;
            };
            at = any;
        }
    }

    fn add_node(&mut self, any: bool) -> usize {
        let node = Node::new(any);
        match self.free.pop() {
            Some(at) => {
                if let Some(slot) = self.nodes.get_mut(at) {
                    *slot = node;
                }
                at
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        }
    }
}

/// Splits a pattern or a key into words; the empty one has none.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = (!text.is_empty()).then(|| text.split('.'));
    words.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{string::String, vec};

    /// Returns whether a pattern matches a key, by a second implementation.
    fn simple(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), None) => simple(rest, key),
            (Some((&"#", rest)), Some((_, tail))) => simple(rest, key) || simple(pattern, tail),
            (Some((&"*", rest)), Some((_, tail))) => simple(rest, tail),
            (Some((word, rest)), Some((first, tail))) => word == first && simple(rest, tail),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    fn all(alphabet: &[&str], len: usize) -> Vec<String> {
        let mut texts = vec![String::new()];
        let mut last: Vec<Vec<&str>> = vec![vec![]];
        for _ in 0..len {
            last = last
                .iter()
                .flat_map(|words| {
                    alphabet.iter().map(|word| {
                        let mut words = words.clone();
                        words.push(word);
                        words
                    })
                })
                .collect();
            texts.extend(last.iter().map(|words| words.join(".")));
        }
        texts
    }

    #[test]
    fn every_short_pattern_matches_as_it_should() {
        let patterns = all(&["a", "b", "*", "#"], 4);
        let mut trie = Trie::new();
        for (number, pattern) in patterns.iter().enumerate() {
            trie.insert(pattern, number);
        }
        for key in all(&["a", "b", ""], 4) {
            let mut found = BTreeSet::new();
            trie.matches(&key, &mut found);
            let key_words: Vec<&str> = words(&key).collect();
            for (number, pattern) in patterns.iter().enumerate() {
                let pattern_words: Vec<&str> = words(pattern).collect();
                let expected = simple(&pattern_words, &key_words);
                assert_eq!(found.contains(&number), expected, "{pattern} {key}");
            }
        }
    }

    #[test]
    fn what_is_taken_out_is_gone_and_its_nodes_are_used_again() {
        let mut trie = Trie::new();
        trie.insert("a.*.#", 1);
        trie.insert("a.*.#", 1);
        trie.insert("a", 2);
        let nodes = trie.nodes.len();
        trie.remove("a.*.#", &1);
        trie.remove("a.*.#", &3);
        trie.remove("b", &1);
        let matches = |trie: &Trie<i32>, key| {
            let mut found = BTreeSet::new();
            trie.matches(key, &mut found);
            found.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(matches(&trie, "a.b"), [1]);
        trie.remove("a.*.#", &1);
        assert!(matches(&trie, "a.b").is_empty());
        assert_eq!(matches(&trie, "a"), [2]);
        trie.insert("x.y", 4);
        assert_eq!(matches(&trie, "x.y"), [4]);
        assert_eq!(trie.nodes.len(), nodes);
    }

    #[test]
    fn many_wildcards_cost_no_more_than_words_times_nodes() {
        let mut trie = Trie::new();
        trie.insert(&["#"; 100].join("."), 1);
        trie.insert(&["#.a"; 60].join("."), 2);
        let mut found = BTreeSet::new();
        trie.matches(&["b"; 128].join("."), &mut found);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [1]);
    }
}
