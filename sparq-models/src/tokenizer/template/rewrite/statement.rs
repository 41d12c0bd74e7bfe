//! Statements, by the grammar of Jinja2's parser.

use std::ops::Range;

use super::{
    DEPTH, SyntaxError, apply,
    expression::{Node, Parser},
    lexer::Kind,
};

type Result<T> = std::result::Result<T, SyntaxError>;

/// The blocks that are open.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Names, and how deep minijinja's tree is there.
    open: Vec<(String, usize)>,
    /// The arguments of the macros that are open.
    macros: Vec<Vec<String>>,
    /// Whether loops may end before their last item.
    breaks: bool,
}

/// What Jinja2 gives a macro beside its arguments.
const SURPLUS: [&str; 2] = ["varargs", "kwargs"];

impl Blocks {
    pub(super) fn new(breaks: bool) -> Self {
        Self { breaks, ..Self::default() }
    }

    /// Whether a statement is inside of a macro or of a block that is given to one: such bodies see the names
    /// around them only if they read them.
    fn in_macro(&self) -> bool {
        self.open.iter().any(|(name, _)| matches!(name.as_str(), "macro" | "call"))
    }

    /// Whether the innermost block is a condition.
    pub(super) fn in_condition(&self) -> bool {
        self.open.last().is_some_and(|(name, _)| name == "if")
    }

    /// What a macro may not read: the arguments that it does not name.
    pub(super) fn hidden(&self) -> Vec<&'static str> {
        let named = |name: &str| self.macros.iter().flatten().any(|argument| argument == name);
        SURPLUS.into_iter().filter(|name| !self.macros.is_empty() && !named(name)).collect()
    }

    fn enter(&mut self, name: &str, range: Range<usize>) -> Result<()> {
        let depth = self.open.last().map_or(0, |(_, depth)| *depth) + 1;
        if depth > DEPTH {
            return Err(SyntaxError::new(range, format!("blocks nested deeper than {DEPTH} levels")));
        }
        self.open.push((name.to_owned(), depth));
        Ok(())
    }

    /// One statement. Those that hold no expression of interest are left to minijinja, unknown ones as well.
    pub(super) fn statement(&mut self, mut parser: Parser<'_>) -> Result<()> {
        let keyword = parser.name()?;
        let name = &parser.source[keyword.start..keyword.end];
        match name {
            "for" => {
                self.enter(name, parser.tag())?;
                for_loop(&mut parser, self.breaks)?;
            }
            "if" | "elif" => {
                match self.open.last_mut() {
                    Some((open, depth)) if name == "elif" && open == "if" && *depth < DEPTH => *depth += 1,
                    _ if name == "elif" => {
                        let message = format!("`elif` without an `if`, or behind more than {DEPTH} others");
                        return Err(SyntaxError::new(parser.tag(), message));
                    }
                    _ => self.enter(name, parser.tag())?,
                }
                parser.tuple(false)?;
            }
            "set" => {
                let in_macro = self.in_macro();
                if set(&mut parser, in_macro)? {
                    self.enter(name, parser.tag())?;
                    return Ok(());
                }
            }
            "macro" => {
                self.enter(name, parser.tag())?;
                parser.name()?;
                self.macros.push(signature(&mut parser)?);
            }
            "call" => {
                self.enter(name, parser.tag())?;
                let arguments = if parser.peek() == "(" { signature(&mut parser)? } else { vec![] };
                parser.expression()?;
                self.macros.push(arguments);
            }
            "filter" => {
                self.enter(name, parser.tag())?;
                filters(&mut parser)?;
            }
            "with" => {
                self.enter(name, parser.tag())?;
                with(&mut parser)?;
            }
            // What marks a text for training is a scope and no more.
            "generation" => {
                self.enter(name, parser.tag())?;
                parser.edits.replace(keyword.start, keyword.end, "with");
            }
            // Prompts are no HTML: minijinja knows other ways to escape than Jinja2.
            "autoescape" => {
                return Err(SyntaxError::new(parser.tag(), "the statement `autoescape` is not supported"));
            }
            "block" => {
                self.no_scope_of_its_own(&parser)?;
                return self.enter(name, parser.tag());
            }
            "break" | "continue" => self.jump(name, &parser)?,
            "else" => {}
            "include" | "import" | "extends" | "from" => {
                let message = format!("`{name}` needs another template, and there is none");
                return Err(SyntaxError::new(parser.tag(), message));
            }
            _ => match name.strip_prefix("end") {
                Some(block) => return self.leave(block, &mut parser, keyword.start..keyword.end),
                None => {
                    return Err(SyntaxError::new(parser.tag(), format!("unknown statement `{name}`")));
                }
            },
        }
        if parser.peek() == ":" {
            // Jinja2 takes a colon as Python does.
            let colon = parser.next()?;
            parser.edits.replace(colon.start, colon.end, " ");
        }
        parser.end()
    }

    /// A jump out of a block in a loop would leave what minijinja gathers for it, or its names, behind.
    fn jump(&self, name: &str, parser: &Parser<'_>) -> Result<()> {
        let message = match self.open.iter().rev().find(|(open, _)| open != "if") {
            Some((open, _)) if open == "for" => return Ok(()),
            Some((open, _)) => format!("`{name}` inside of `{open}` is not supported"),
            None => format!("`{name}` outside of a loop"),
        };
        Err(SyntaxError::new(parser.tag(), message))
    }

    /// A block of Jinja2 does not see the names of the loop or the macro around it.
    fn no_scope_of_its_own(&self, parser: &Parser<'_>) -> Result<()> {
        match self.open.iter().find(|(open, _)| !matches!(open.as_str(), "if" | "block")) {
            None => Ok(()),
            Some((open, _)) => {
                let message = format!("a `block` inside of `{open}` is not supported");
                Err(SyntaxError::new(parser.tag(), message))
            }
        }
    }

    fn leave(&mut self, block: &str, parser: &mut Parser<'_>, keyword: Range<usize>) -> Result<()> {
        match self.open.pop() {
            Some((open, _)) if open == block => {}
            open => {
                let expected = open.map_or("no such tag".to_owned(), |(open, _)| format!("`end{open}`"));
                return Err(SyntaxError::new(
                    parser.tag(),
                    format!("unexpected `end{block}`, expected {expected}"),
                ));
            }
        }
        if matches!(block, "macro" | "call") {
            self.macros.pop();
        }
        if block == "generation" {
            parser.edits.replace(keyword.start, keyword.end, "endwith");
        }
        if block == "block" && parser.kind() == Some(Kind::Name) {
            parser.name()?;
        }
        parser.end()
    }

    /// What is wrong at the end of a template.
    pub(super) fn end(self, source: &str) -> Result<()> {
        match self.open.last() {
            None => Ok(()),
            Some((name, _)) => {
                let message = format!("unexpected end of the template, expected `end{name}`");
                Err(SyntaxError::new(source.len()..source.len(), message))
            }
        }
    }
}

/// `name`, `name, name`, `(name, name)`; returns a single name with a dot behind it.
fn target<'a>(parser: &mut Parser<'a>) -> Result<Option<&'a str>> {
    let mut count = 0;
    let mut space = None;
    loop {
        if parser.skip("(") {
            target(parser)?;
            parser.expect(")")?;
        } else {
            let name = parser.name()?;
            if parser.skip(".") {
                let field = parser.name()?;
                if parser.source[field.start..field.end].starts_with('_') {
                    let message = "a namespace takes no names that begin with `_`";
                    return Err(SyntaxError::new(field.start..field.end, message));
                }
                space = Some(&parser.source[name.start..name.end]);
            }
        }
        count += 1;
        if !parser.skip(",") || matches!(parser.peek(), "in" | "=" | ")" | "") {
            return Ok(space.filter(|_| count == 1));
        }
    }
}

/// Whether the target that follows is several names.
fn takes_apart(parser: &Parser<'_>) -> bool {
    parser.peek() == "(" || parser.word(1) == ","
}

/// Python loops over texts, and not over `none`.
fn for_loop(parser: &mut Parser<'_>, breaks: bool) -> Result<()> {
    let apart = takes_apart(parser);
    target(parser)?;
    parser.expect("in")?;
    let node = parser.tuple(false)?;
    let open = match (breaks, apart) {
        (true, true) => "_rows(_iter_to_break(",
        (true, false) => "_iter_to_break(",
        (false, true) => "_rows(",
        (false, false) => "_iter(",
    };
    wrap(parser, node, open, if breaks && apart { "))" } else { ")" });
    if parser.skip("if") {
        parser.expression()?;
    }
    parser.skip("recursive");
    Ok(())
}

/// `set target = value`, or the beginning of a block, for which it returns true.
fn set(parser: &mut Parser<'_>, in_macro: bool) -> Result<bool> {
    let apart = takes_apart(parser);
    let space = target(parser)?;
    let open = match (space, apart) {
        (Some(_), _) => "_kept(",
        (None, true) => "_stored(_row(",
        (None, false) => "_stored(",
    };
    let space = space.filter(|_| in_macro);
    if parser.skip("=") {
        let node = parser.tuple(true)?;
        // A second argument reads the namespace, or a macro would not see it.
        let close = match space {
            Some(space) => format!(", {space})"),
            None => if apart { "))" } else { ")" }.to_owned(),
        };
        wrap(parser, node, open, &close);
        return Ok(false);
    }
    if parser.skip("|") {
        filters(parser)?;
    }
    parser.end()?;
    if let Some(space) = space {
        behind_tag(parser, &[format!("if {space}"), "endif".to_owned()]);
    }
    Ok(true)
}

fn filters(parser: &mut Parser<'_>) -> Result<()> {
    let mut node = parser.nothing();
    loop {
        node = parser.filter(node)?;
        if !parser.skip("|") {
            return Ok(());
        }
    }
}

/// `name = value, …`. In Jinja2 no value sees the names beside it: several become one that is taken apart.
fn with(parser: &mut Parser<'_>) -> Result<()> {
    let mut pairs = Vec::new();
    let edits = parser.edits.count();
    let start = parser.place();
    let mut end = start;
    while !parser.at_end() {
        let place = parser.place();
        let apart = takes_apart(parser);
        target(parser)?;
        let name = parser.source[place..parser.expect("=")?.start].trim();
        let edits = parser.edits.count();
        let node = parser.expression()?;
        let name = if apart && !name.starts_with('(') { format!("({name})") } else { name.to_owned() };
        pairs.push((name, apart, node, parser.edits.since(edits)));
        end = node.end;
        if !parser.at_end() {
            end = parser.expect(",")?.end;
            if parser.at_end() {
                return Err(parser.unexpected("a name"));
            }
        }
    }
    let _ = parser.edits.since(edits);
    if pairs.is_empty() {
        return Ok(());
    }
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for (name, apart, node, edits) in pairs {
        names.push(name);
        let value = apply(parser.source, node.start..node.end, edits).0;
        values.push(if apart { format!("_row({value})") } else { value });
    }
    let text = match names.len() {
        1 => format!("{} = {}", names[0], values[0]),
        _ => format!("({}) = ({})", names.join(", "), values.join(", ")),
    };
    parser.edits.replace(start, end, text);
    Ok(())
}

/// The arguments of a macro, whose names it returns. minijinja finds defaults before the arguments that they may
/// name: such are set in the body.
fn signature(parser: &mut Parser<'_>) -> Result<Vec<String>> {
    parser.expect("(")?;
    let mut names = Vec::new();
    let mut behind = Vec::new();
    while parser.peek() != ")" {
        let name = parser.name()?;
        let name = &parser.source[name.start..name.end];
        names.push(name.to_owned());
        if parser.skip("=") {
            let edits = parser.edits.count();
            let node = parser.expression()?;
            if !node.constant {
                let value = late_default(parser, node, edits);
                behind.push(format!("if {name} is undefined"));
                behind.push(format!("set {name} = {value}"));
                behind.push("endif".to_owned());
            }
        }
        behind.push(format!("set {name} = _argument({name})"));
        if parser.peek() != ")" {
            parser.expect(",")?;
        }
    }
    parser.expect(")")?;
    // A call may give what is undefined to any macro in a form that tells it from a default.
    if parser.defaults && !behind.is_empty() {
        behind_tag(parser, &behind);
    }
    Ok(names)
}

/// Takes the expression, with its edits since they were counted, out of its place.
fn late_default(parser: &mut Parser<'_>, node: Node, edits: (usize, usize)) -> String {
    let own = parser.edits.since(edits);
    let (text, _) = apply(parser.source, node.start..node.end, own);
    let lines = text.matches('\n').count();
    parser.edits.replace(node.start, node.end, format!("_unset{}", "\n".repeat(lines)));
    text.replace('\n', " ")
}

/// Puts tags directly behind the one of `parser`, with its sign on the last one.
fn behind_tag(parser: &mut Parser<'_>, tags: &[String]) {
    let end = parser.tag().end;
    let sign = match parser.source[..end - 2].chars().next_back() {
        Some(sign @ ('-' | '+')) => sign.to_string(),
        _ => String::new(),
    };
    // The last tag takes over the end of this one.
    let close = end - 2 - sign.len();
    let text = tags.iter().map(|tag| format!("%}}{{% {tag} ")).collect::<String>();
    parser.edits.close(close, format!(" {text}"));
}

fn wrap(parser: &mut Parser<'_>, node: Node, open: &str, close: &str) {
    parser.edits.open(node.start, open);
    parser.edits.close(node.end, close);
}
