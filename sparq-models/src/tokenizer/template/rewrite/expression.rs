//! Expressions, by the grammar of Jinja2's parser: tokens and operators.

mod parts;

use std::ops::Range;

use super::{
    DEPTH, Edits, SyntaxError,
    lexer::{Kind, Token},
};

type Result<T> = std::result::Result<T, SyntaxError>;

/// A part of an expression.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) start: usize,
    pub(super) end: usize,
    /// How deep minijinja's tree of it is.
    depth: usize,
    /// Whether it is a single constant.
    pub(super) constant: bool,
}

/// The tokens of one tag, in the order of reading.
pub(super) struct Parser<'a> {
    pub(super) source: &'a str,
    tokens: &'a [Token],
    at: usize,
    tag: Range<usize>,
    pub(super) edits: &'a mut Edits,
    /// How many calls deep the parser is.
    inside: usize,
    /// Whether there are macros whose arguments have defaults.
    pub(super) defaults: bool,
    /// Names that mean something here that is not supported.
    pub(super) hidden: Vec<&'static str>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(
        source: &'a str,
        tokens: &'a [Token],
        tag: Range<usize>,
        edits: &'a mut Edits,
        defaults: bool,
    ) -> Self {
        Self { source, tokens, at: 0, tag, edits, inside: 0, defaults, hidden: vec![] }
    }

    /// The range of the whole tag.
    pub(super) fn tag(&self) -> Range<usize> {
        self.tag.clone()
    }

    /// What is said by a token, nothing behind the last one.
    pub(super) fn word(&self, ahead: usize) -> &'a str {
        self.tokens.get(self.at + ahead).map_or("", |token| &self.source[token.start..token.end])
    }

    pub(super) fn peek(&self) -> &'a str {
        self.word(0)
    }

    /// Where the next token begins, the end of the tag behind the last one.
    pub(super) fn place(&self) -> usize {
        self.tokens.get(self.at).map_or(self.tag.end, |token| token.start)
    }

    pub(super) fn kind(&self) -> Option<Kind> {
        self.tokens.get(self.at).map(|token| token.kind)
    }

    pub(super) fn at_end(&self) -> bool {
        self.at == self.tokens.len()
    }

    pub(super) fn skip(&mut self, word: &str) -> bool {
        let found = self.peek() == word;
        self.at += usize::from(found);
        found
    }

    pub(super) fn next(&mut self) -> Result<Token> {
        let token = self.tokens.get(self.at).copied().ok_or_else(|| self.unexpected("an expression"))?;
        self.at += 1;
        Ok(token)
    }

    pub(super) fn expect(&mut self, word: &str) -> Result<Token> {
        match self.peek() == word {
            true => self.next(),
            false => Err(self.unexpected(&format!("`{word}`"))),
        }
    }

    pub(super) fn name(&mut self) -> Result<Token> {
        match self.kind() {
            Some(Kind::Name) => self.next(),
            _ => Err(self.unexpected("a name")),
        }
    }

    pub(super) fn unexpected(&self, expected: &str) -> SyntaxError {
        match self.tokens.get(self.at) {
            Some(token) => {
                let message = format!("unexpected `{}`, expected {expected}", self.peek());
                SyntaxError::new(token.start..token.end, message)
            }
            None => SyntaxError::new(self.tag(), format!("unexpected end of the tag, expected {expected}")),
        }
    }

    pub(super) fn end(&self) -> Result<()> {
        match self.at_end() {
            true => Ok(()),
            false => Err(self.unexpected("the end of the tag")),
        }
    }

    /// `{{ … }}`.
    pub(super) fn output(&mut self) -> Result<()> {
        self.tuple(true)?;
        self.end()
    }

    /// One expression, or several with commas between them, which minijinja takes in brackets only.
    pub(super) fn tuple(&mut self, conditional: bool) -> Result<Node> {
        let one = |parser: &mut Self| match conditional {
            true => parser.expression(),
            false => parser.or(),
        };
        let mut node = one(self)?;
        if self.peek() != "," {
            return Ok(node);
        }
        let start = node.start;
        while self.peek() == "," {
            node.end = self.next()?.end;
            if self.at_end() || matches!(self.peek(), "if" | "recursive" | "=") {
                break;
            }
            let item = one(self)?;
            node = self.deeper(node, item)?;
        }
        self.edits.open(start, "(");
        self.edits.close(node.end, ")");
        Ok(Node { start, constant: false, ..node })
    }

    /// What goes from `left` to the end of `right`, one level deeper than both.
    fn deeper(&self, left: Node, right: Node) -> Result<Node> {
        let depth = left.depth.max(right.depth) + 1;
        if depth > DEPTH {
            return Err(SyntaxError::new(
                left.start..right.end,
                format!("nested deeper than {DEPTH} levels"),
            ));
        }
        Ok(Node { start: left.start, end: right.end, depth, constant: false })
    }

    pub(super) fn expression(&mut self) -> Result<Node> {
        self.inside += 1;
        if self.inside > DEPTH {
            return Err(SyntaxError::new(self.tag(), format!("nested deeper than {DEPTH} levels")));
        }
        let mut node = self.or()?;
        while self.skip("if") {
            let condition = self.or()?;
            node = self.deeper(node, condition)?;
            if self.skip("else") {
                let other = self.expression()?;
                node = self.deeper(node, other)?;
            }
        }
        self.inside -= 1;
        Ok(node)
    }

    /// Operands of `part` with any of `operators` between them.
    fn chain(&mut self, operators: &[&str], part: fn(&mut Self) -> Result<Node>) -> Result<Node> {
        let mut node = part(self)?;
        while operators.contains(&self.peek()) {
            self.at += 1;
            let right = part(self)?;
            node = self.deeper(node, right)?;
        }
        Ok(node)
    }

    pub(super) fn or(&mut self) -> Result<Node> {
        self.chain(&["or"], |parser| parser.chain(&["and"], Self::not))
    }

    fn not(&mut self) -> Result<Node> {
        if self.peek() != "not" {
            return self.compare();
        }
        self.prefixed(Self::not)
    }

    /// An operator and what it applies to.
    fn prefixed(&mut self, part: fn(&mut Self) -> Result<Node>) -> Result<Node> {
        let operator = self.next()?;
        self.inside += 1;
        if self.inside > DEPTH {
            return Err(SyntaxError::new(self.tag(), format!("nested deeper than {DEPTH} levels")));
        }
        let node = part(self)?;
        self.inside -= 1;
        self.deeper(Node { start: operator.start, ..node }, node)
    }

    /// Comparisons, in a row as in Python; those that ask for an order, or for a part, become a call.
    fn compare(&mut self) -> Result<Node> {
        let mut node = self.sum()?;
        let mut operators = Vec::new();
        loop {
            let count = match self.peek() {
                "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" => 1,
                "not" if self.word(1) == "in" => 2,
                _ => break,
            };
            let (first, last) = (self.tokens[self.at], self.tokens[self.at + count - 1]);
            operators.push((first.start..last.end, if count == 2 { "not in" } else { self.peek() }));
            self.at += count;
            let right = self.sum()?;
            node = self.deeper(node, right)?;
        }
        if operators.iter().any(|(_, operator)| !matches!(*operator, "==" | "!=")) {
            self.edits.open(node.start, "_compare(");
            self.edits.close(node.end, ")");
            for (range, operator) in operators {
                self.edits.replace(range.start, range.end, format!(", \"{operator}\", "));
            }
        }
        Ok(node)
    }

    fn sum(&mut self) -> Result<Node> {
        self.calls(&["+", "-"], &[("+", "_add")], |parser| {
            parser.calls(&["~"], &[("~", "_concat")], Self::product)
        })
    }

    fn product(&mut self) -> Result<Node> {
        self.calls(&["*", "/", "//", "%"], &[("*", "_mul"), ("%", "_mod")], |parser| {
            parser.calls(&["**"], &[("**", "_pow")], |parser| parser.unary(true))
        })
    }

    /// A chain in which some of the operators become calls of functions.
    fn calls(
        &mut self,
        operators: &[&str],
        functions: &[(&str, &str)],
        part: fn(&mut Self) -> Result<Node>,
    ) -> Result<Node> {
        let mut node = part(self)?;
        let mut open = "";
        while operators.contains(&self.peek()) {
            let operator = self.next()?;
            let word = &self.source[operator.start..operator.end];
            let right = part(self)?;
            let function = functions.iter().find(|(operator, _)| *operator == word);
            if open == word {
                // One call takes all operands of a row.
                node = Node { end: right.end, depth: node.depth.max(right.depth + 1), ..node };
            } else {
                self.close_call(open, node.end);
                open = function.map_or("", |_| word);
                if let Some((_, function)) = function {
                    self.edits.open(node.start, format!("{function}("));
                }
                node = self.deeper(node, right)?;
            }
            if function.is_some() {
                self.edits.replace(operator.start, operator.end, ",");
            }
        }
        self.close_call(open, node.end);
        Ok(node)
    }

    fn close_call(&mut self, open: &str, end: usize) {
        if !open.is_empty() {
            self.edits.close(end, ")");
        }
    }

    fn unary(&mut self, with_filters: bool) -> Result<Node> {
        let node = match self.peek() {
            sign @ ("-" | "+") => {
                let token = self.tokens[self.at];
                let number = matches!(
                    self.tokens.get(self.at + 1),
                    Some(Token { kind: Kind::Integer | Kind::Float, .. })
                );
                let node = self.prefixed(|parser| parser.unary(false))?;
                if sign == "+" || !number {
                    self.edits.replace(token.start, token.end, if sign == "+" { "_pos(" } else { "_neg(" });
                    self.edits.close(node.end, ")");
                }
                node
            }
            _ => {
                let node = self.primary()?;
                self.postfix(node)?
            }
        };
        match with_filters {
            true => self.filters(node),
            false => Ok(node),
        }
    }

    /// A node that stands before the first filter of a block.
    pub(super) fn nothing(&self) -> Node {
        Node { start: self.tag.start, end: self.tag.start, depth: 0, constant: false }
    }
}
