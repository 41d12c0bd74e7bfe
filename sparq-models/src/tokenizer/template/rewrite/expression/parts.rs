//! Values, what stands directly behind them, filters and tests.

use super::super::{
    SyntaxError,
    lexer::{Kind, Token, text_constant},
    names::{Mention, Name},
};
use super::{Node, Parser, Result};
use crate::tokenizer::template::{methods, numbers};

/// What Python knows of a macro beside its name.
const OF_MACROS: [&str; 5] = ["arguments", "caller", "catch_kwargs", "catch_varargs", "explicit_caller"];

/// Functions that Jinja2 knows, and not the template; they see what is undefined.
const FUNCTIONS: [&str; 6] = ["dict", "loop", "namespace", "raise_exception", "range", "strftime_now"];

impl Parser<'_> {
    pub(super) fn primary(&mut self) -> Result<Node> {
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
            Kind::Float if word.replace('_', "").parse().is_ok_and(f64::is_infinite) => {
                Err(SyntaxError::new(token.start..token.end, "a number beyond those of 64 bits"))
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

    pub(super) fn postfix(&mut self, mut node: Node) -> Result<Node> {
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
                    } else if (is_attribute(word) || OF_MACROS.contains(&word)) && !of_loop {
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
                is_attribute(text) || text.contains('\\')
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
    pub(super) fn filters(&mut self, mut node: Node) -> Result<Node> {
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
    pub(in super::super) fn filter(&mut self, value: Node) -> Result<Node> {
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
}

/// Whether a value of Python may have an attribute of this name.
fn is_attribute(name: &str) -> bool {
    methods::is_one(name) || numbers::is_attribute(name)
}
