//! Expressions, by the grammar of Jinja2's parser.

use std::ops::Range;

use super::{
    DEPTH, Edits, SyntaxError,
    lexer::{Kind, Token, text_constant},
    names::{Mention, Name},
};
use crate::tokenizer::template::methods;

type Result<T> = std::result::Result<T, SyntaxError>;

/// What Python knows of a macro beside its name.
const OF_MACROS: [&str; 5] = ["arguments", "caller", "catch_kwargs", "catch_varargs", "explicit_caller"];

/// Functions that Jinja2 knows, and not the template; they see what is undefined.
const FUNCTIONS: [&str; 6] = ["dict", "loop", "namespace", "raise_exception", "range", "strftime_now"];

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
        self.calls(&["*", "/", "//", "%"], &[("%", "_mod")], |parser| {
            parser.chain(&["**"], |parser| parser.unary(true))
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

    fn primary(&mut self) -> Result<Node> {
        let token = self.next()?;
        let node = Node { start: token.start, end: token.end, depth: 1, constant: true };
        let word = &self.source[token.start..token.end];
        match token.kind {
            Kind::Name => {
                let constant = matches!(word, "true" | "True" | "false" | "False" | "none" | "None");
                if self.hidden.contains(&word) {
                    let message = format!("`{word}` of a macro is not supported");
                    return Err(SyntaxError::new(token.start..token.end, message));
                }
                if word == "self" && matches!(self.peek(), "." | "[") {
                    let message = "what `self` names, the blocks of the template, is not supported";
                    return Err(SyntaxError::new(token.start..token.end, message));
                }
                if self.peek() == "(" {
                    self.mention(Name::Function, token);
                }
                Ok(Node { constant, ..node })
            }
            Kind::Integer | Kind::Float => Ok(node),
            Kind::Text => {
                let mut node = node;
                self.text(token)?;
                while self.kind() == Some(Kind::Text) {
                    let token = self.next()?;
                    self.text(token)?;
                    node.end = token.end;
                }
                Ok(node)
            }
            Kind::Operator => match word {
                "(" => self.items(node, ")", Self::expression),
                "[" => self.items(node, "]", Self::expression),
                "{" => self.items(node, "}", |parser| {
                    let key = parser.expression()?;
                    if !key.constant {
                        parser.edits.open(key.start, "_key(");
                        parser.edits.close(key.end, ")");
                    }
                    parser.expect(":")?;
                    let value = parser.expression()?;
                    parser.deeper(key, value)
                }),
                _ => {
                    self.at -= 1;
                    Err(self.unexpected("an expression"))
                }
            },
        }
    }

    fn text(&mut self, token: Token) -> Result<()> {
        if let Some(text) = text_constant(self.source, token)? {
            self.edits.replace(token.start, token.end, text);
        }
        Ok(())
    }

    /// `item, item, …` up to the bracket that closes.
    fn items(&mut self, open: Node, close: &str, item: fn(&mut Self) -> Result<Node>) -> Result<Node> {
        let mut node = Node { constant: false, ..open };
        while self.peek() != close {
            let value = item(self)?;
            let depth = node.depth.max(value.depth + 1);
            node = Node { depth, ..node };
            if self.peek() != close {
                self.expect(",")?;
            }
        }
        node.end = self.expect(close)?.end;
        self.deeper(node, Node { depth: node.depth - 1, ..node })
    }

    fn postfix(&mut self, mut node: Node) -> Result<Node> {
        let mut method = false;
        loop {
            let start = node.start;
            match self.peek() {
                "." => {
                    method = true;
                    let dot = self.next()?;
                    let name = match self.kind() {
                        Some(Kind::Name | Kind::Integer) => self.next()?,
                        _ => return Err(self.unexpected("a name")),
                    };
                    let word = &self.source[name.start..name.end];
                    node = self.deeper(node, Node { end: name.end, ..node })?;
                    let of_loop = &self.source[start..dot.start] == "loop";
                    if self.peek() == "(" {
                        self.mention(Name::Method, name);
                    } else if (methods::is_one(word) || OF_MACROS.contains(&word)) && !of_loop {
                        self.edits.open(start, "_attr(");
                        self.edits.replace(dot.start, name.end, format!(", \"{word}\")"));
                    }
                }
                "[" => {
                    method = false;
                    let open = self.next()?;
                    let first = self.at;
                    let (index, part) = self.subscript()?;
                    node = self.deeper(node, index)?;
                    let close = self.expect("]")?;
                    node.end = close.end;
                    if part {
                        self.edits.open(start, "_slice(");
                        self.edits.replace(open.start, open.end, ", ");
                        self.edits.replace(close.start, close.end, ")");
                    } else if self.may_name_a_method(&self.tokens[first..self.at - 1]) {
                        self.edits.open(start, "_item(");
                        self.edits.replace(open.start, open.end, ", ");
                        self.edits.replace(close.start, close.end, ")");
                    }
                }
                "(" => {
                    node = self.call(node, method)?;
                    method = false;
                }
                _ => return Ok(node),
            }
        }
    }

    /// Whether an index may be the name of a method: neither a number nor another text.
    fn may_name_a_method(&self, index: &[Token]) -> bool {
        let word = |token: &Token| &self.source[token.start..token.end];
        match index {
            [token] if token.kind == Kind::Text => {
                let text = word(token).get(1..word(token).len() - 1).unwrap_or_default();
                methods::is_one(text) || text.contains('\\')
            }
            index => !index.iter().all(|token| token.kind == Kind::Integer || word(token) == "-"),
        }
    }

    /// Notes a name that must be known.
    fn mention(&mut self, name: Name, token: Token) {
        let conditional = self.tokens.iter().any(|token| &self.source[token.start..token.end] == "if");
        self.edits.mentions.push(Mention { name, range: token.start..token.end, conditional });
    }

    /// `index` or `start:stop:step`, for which it returns true.
    fn subscript(&mut self) -> Result<(Node, bool)> {
        let here = self.place();
        let mut node = Node { start: here, end: here, depth: 0, constant: false };
        let mut colons = 0;
        // Whether a part of the three is there.
        let mut filled = false;
        while self.peek() != "]" {
            if self.peek() == ":" && colons < 2 {
                let colon = self.next()?;
                self.edits.replace(colon.start, colon.end, if filled { ", " } else { "none, " });
                (colons, filled) = (colons + 1, false);
            } else if filled {
                return Err(self.unexpected("`]`"));
            } else {
                let part = self.expression()?;
                node = Node { depth: node.depth.max(part.depth), ..node };
                filled = true;
            }
        }
        if colons == 0 && !filled {
            return Err(self.unexpected("an index"));
        }
        if colons > 0 {
            let missing = 2 - colons + usize::from(!filled);
            let none = vec!["none"; missing].join(", ");
            let place = self.place();
            let comma = if filled && missing > 0 { ", " } else { "" };
            self.edits.close(place, format!("{comma}{none}"));
        }
        Ok((node, colons > 0))
    }

    /// The arguments of a call; `named` is that of a method, a filter or a test, which is no macro.
    fn call(&mut self, callee: Node, named: bool) -> Result<Node> {
        let name = &self.source[callee.start..callee.end];
        let recursion = name == "loop";
        // Any other value may be a macro.
        let with_defaults = self.defaults && !named && !FUNCTIONS.contains(&name);
        self.expect("(")?;
        let mut node = callee;
        while self.peek() != ")" {
            let unpacked = matches!(self.peek(), "*" | "**");
            if unpacked {
                self.at += 1;
            } else if self.kind() == Some(Kind::Name) && self.word(1) == "=" {
                self.at += 2;
            }
            let argument = self.expression()?;
            if recursion {
                self.edits.open(argument.start, "_iter(");
                self.edits.close(argument.end, ")");
            }
            if with_defaults && !argument.constant && !unpacked {
                self.edits.open(argument.start, "_given(");
                self.edits.close(argument.end, ")");
            }
            node = Node { depth: node.depth.max(argument.depth), ..node };
            if self.peek() != ")" {
                self.expect(",")?;
            }
        }
        node.end = self.expect(")")?.end;
        self.deeper(Node { start: callee.start, ..node }, node)
    }

    /// Filters and tests behind a value.
    fn filters(&mut self, mut node: Node) -> Result<Node> {
        loop {
            match self.peek() {
                "|" => {
                    self.at += 1;
                    node = self.filter(node)?;
                }
                "is" => {
                    self.at += 1;
                    self.skip("not");
                    node = self.test(node)?;
                }
                "(" => node = self.call(node, false)?,
                _ => return Ok(node),
            }
        }
    }

    fn dotted_name(&mut self) -> Result<Token> {
        let mut name = self.name()?;
        while self.skip(".") {
            name.end = self.name()?.end;
        }
        Ok(name)
    }

    /// One filter and its arguments.
    pub(super) fn filter(&mut self, value: Node) -> Result<Node> {
        let name = self.dotted_name()?;
        self.mention(Name::Filter, name);
        let node = self.deeper(value, Node { end: name.end, ..value })?;
        match self.peek() {
            "(" => self.call(node, true),
            _ => Ok(node),
        }
    }

    fn test(&mut self, value: Node) -> Result<Node> {
        let name = self.dotted_name()?;
        self.mention(Name::Test, name);
        let node = self.deeper(value, Node { end: name.end, ..value })?;
        let argument = match (self.kind(), self.peek()) {
            (Some(Kind::Operator), "(") => return self.call(node, true),
            (Some(Kind::Operator), "[" | "{") | (Some(Kind::Text | Kind::Integer | Kind::Float), _) => true,
            (Some(Kind::Name), "is") => {
                return Err(SyntaxError::new(value.start..node.end, "tests cannot be chained with `is`"));
            }
            (Some(Kind::Name), word) => !matches!(word, "else" | "or" | "and" | "if"),
            _ => false,
        };
        if !argument {
            return Ok(node);
        }
        let argument = self.primary()?;
        let argument = self.postfix(argument)?;
        self.deeper(node, argument)
    }

    /// A node that stands before the first filter of a block.
    pub(super) fn nothing(&self) -> Node {
        Node { start: self.tag.start, end: self.tag.start, depth: 0, constant: false }
    }
}
