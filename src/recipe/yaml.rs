//! YAML as a tree whose nodes know their lines. Bounded before anything is made of it: length, depth,
//! and the nodes that aliases come to.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Largest recipe, in bytes.
pub(crate) const MOST_BYTES: usize = 1 << 20;

/// Nodes of a recipe, with those that aliases repeat.
const MOST_NODES: usize = 100_000;

/// Nodes in each other.
const DEEPEST: usize = 32;

/// What is wrong with a text, and at which line, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// A node of the tree.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Its first line, from 1.
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Text; `plain` where it stands without quotes, so that it may be a number or null.
    Scalar { text: String, plain: bool },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in its order, each key once.
    Map(Vec<Field>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) key: String,
    /// The key's line.
    pub(crate) line: usize,
    pub(crate) node: Node,
}

impl Node {
    /// Whether nothing is said: `key:` or `key: null`.
    pub(crate) fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain: true } => {
                matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    /// Itself and all below it.
    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(nodes) => nodes.iter().map(Node::count).sum(),
            Value::Map(fields) => fields.iter().map(|field| field.node.count()).sum(),
        }
    }
}

/// A list or mapping that is not closed yet.
struct Open {
    line: usize,
    anchor: usize,
    nodes: Nodes,
}

enum Nodes {
    List(Vec<Node>),
    Map(Vec<Field>, Option<(String, usize)>),
}

/// Reads the one document of a text.
///
/// # Errors
/// What is no YAML, goes beyond the bounds, or has no place in a recipe: tags, several documents, keys
/// that are no text or are there twice.
pub(crate) fn parse(text: &str) -> Result<Node, Wrong> {
    if text.len() > MOST_BYTES {
        let what = format!("a recipe of more than {MOST_BYTES} bytes");
        return Err(Wrong { line: 1, what });
    }
    let mut reader = Reader { open: Vec::new(), anchors: HashMap::new(), nodes: 0, root: None };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| Wrong {
            line: error.marker().line(),
            what: format!("no YAML: {}", error.info()),
        })?;
        reader.take(event, span.start.line())?;
    }
    reader.root.ok_or_else(|| Wrong { line: 1, what: "an empty recipe".to_owned() })
}

struct Reader {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Wrong> {
        let wrong = |what: &str| Err(Wrong { line, what: what.to_owned() });
        match event {
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => wrong("a tag, which has no meaning in a recipe"),
            Event::Scalar(text, style, anchor, None) => {
                let plain = style == ScalarStyle::Plain;
                let value = Value::Scalar { text: text.into_owned(), plain };
                self.counted(1, line)?;
                self.put(Node { line, value }, anchor, 1)
            }
            Event::SequenceStart(anchor, None) => {
                self.begin(Open { line, anchor, nodes: Nodes::List(Vec::new()) })
            }
            Event::MappingStart(anchor, None) => {
                self.begin(Open { line, anchor, nodes: Nodes::Map(Vec::new(), None) })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { line, anchor, nodes }) = self.open.pop() else { return Ok(()) };
                let value = match nodes {
                    Nodes::List(nodes) => Value::List(nodes),
                    Nodes::Map(fields, _) => Value::Map(fields),
                };
                let node = Node { line, value };
                let count = if anchor > 0 { node.count() } else { 0 };
                self.put(node, anchor, count)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some((_, count)) => {
                    self.counted(*count, line)?;
                    let node = self.anchors.get(&anchor).map(|known| known.0.clone());
                    node.map_or(Ok(()), |node| self.put(Node { line, ..node }, 0, 0))
                }
                None => wrong("an alias of what holds it"),
            },
            Event::DocumentStart(_) if self.root.is_some() => wrong("a second document"),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, open: Open) -> Result<(), Wrong> {
        self.counted(1, open.line)?;
        if self.open.len() >= DEEPEST {
            let what = format!("more than {DEEPEST} lists and mappings in each other");
            return Err(Wrong { line: open.line, what });
        }
        self.open.push(open);
        Ok(())
    }

    fn counted(&mut self, nodes: usize, line: usize) -> Result<(), Wrong> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MOST_NODES {
            let what = format!("more than {MOST_NODES} nodes, with what aliases repeat");
            return Err(Wrong { line, what });
        }
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize, count: usize) -> Result<(), Wrong> {
        if anchor > 0 {
            // Copies of anchored nodes count, too: anchors in each other are a bomb of their own.
            self.counted(count, node.line)?;
            self.anchors.insert(anchor, (node.clone(), count));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.nodes {
            Nodes::List(nodes) => nodes.push(node),
            Nodes::Map(fields, key @ None) => {
                let Value::Scalar { text, .. } = node.value else {
                    return Err(Wrong {
                        line: node.line,
                        what: "a key that is no text".to_owned(),
                    });
                };
                if fields.iter().any(|field| field.key == text) {
                    let what = format!("`{}` is there twice", crate::tensor::escape(&text));
                    return Err(Wrong { line: node.line, what });
                }
                *key = Some((text, node.line));
            }
            Nodes::Map(fields, key) => {
                if let Some((key, line)) = key.take() {
                    fields.push(Field { key, line, node });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str, plain: bool) -> Value {
        Value::Scalar { text: text.to_owned(), plain }
    }

    fn wrong(text: &str) -> String {
        let wrong = parse(text).unwrap_err();
        format!("{}: {}", wrong.line, wrong.what)
    }

    #[test]
    fn nodes_know_their_lines_and_their_quotes() {
        let Value::Map(fields) = parse("# a\na: 1\nb:\n  - 'x'\n  - {c: }\n").unwrap().value else {
            panic!("no mapping")
        };
        let lines: Vec<(&str, usize)> =
            fields.iter().map(|field| (field.key.as_str(), field.line)).collect();
        assert_eq!(lines, [("a", 2), ("b", 3)]);
        assert_eq!(fields[0].node.value, scalar("1", true));
        let Value::List(nodes) = &fields[1].node.value else { panic!("no list") };
        assert_eq!((nodes[0].line, &nodes[0].value), (4, &scalar("x", false)));
        let Value::Map(inner) = &nodes[1].value else { panic!("no mapping") };
        assert!(inner[0].node.is_null() && !nodes[0].is_null());
    }

    #[test]
    fn aliases_are_what_they_stand_for() {
        let text = "a: &x [1, 2]\nb: *x\nc: {d: *x}\n";
        let Value::Map(fields) = parse(text).unwrap().value else { panic!("no mapping") };
        assert_eq!(fields[0].node.value, fields[1].node.value);
        assert_eq!(fields[1].node.line, 2);
    }

    #[test]
    fn bombs_of_aliases_are_refused_at_once() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..40 {
            let below = format!("*a{}", level - 1);
            let ten = vec![below; 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{ten}]\n"));
        }
        let started = std::time::Instant::now();
        assert!(wrong(&text).contains("more than 100000 nodes"));
        assert!(started.elapsed().as_secs() < 1);
        // Anchors in each other: every closing would copy all that is inside.
        let nested: String = (0..30).map(|level| format!("&b{level} [")).collect();
        let inside = "x, ".repeat(20_000);
        let text = format!("{nested}{inside}{}", "]".repeat(30));
        assert!(wrong(&text).contains("more than 100000 nodes"));
        assert!(wrong("a: &a [*a]").contains("an alias of what holds it"));
    }

    #[test]
    fn what_has_no_place_in_a_recipe_is_refused_with_its_line() {
        for (text, said) in [
            ("a: [1, 2\nb: 3\n", ": no YAML: "),
            ("a: 1\n b: 2\n", ": no YAML: "),
            ("a: 1\na: 2\n", "2: `a` is there twice"),
            ("a: !!python/object:os.system x\n", "1: a tag"),
            ("a: !x {b: c}\n", "1: a tag"),
            ("? [a]\n: b\n", "1: a key that is no text"),
            ("a: 1\n---\nb: 2\n", "a second document"),
            ("", "1: an empty recipe"),
            ("# nothing\n", "1: an empty recipe"),
            ("a: *x\n", "1: no YAML: "),
        ] {
            assert!(wrong(text).contains(said), "{text}: {}", wrong(text));
        }
        assert!(wrong(&"[".repeat(40)).contains("more than 32 lists"));
        assert!(wrong(&"- ".repeat(200_000)).contains("more than 32 lists"));
        assert!(wrong(&"a".repeat(MOST_BYTES + 1)).contains("bytes"));
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let text = "slices: &s\n  - {a: [0, 1.5], 'b': \"c\"}\nx: *s\n? y\n: |\n  z\n";
        for from in 0..text.len() {
            for byte in *b"\0\t\n :-[]{},&*!|>'\"%@`#?~\x7f" {
                let mut bytes = text.as_bytes().to_vec();
                bytes[from] = byte;
                let text = String::from_utf8(bytes).unwrap();
                let _ = parse(&text);
                let _ = parse(&text[..from]);
            }
        }
    }
}
