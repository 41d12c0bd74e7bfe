//! Values of Python that hold items and are no lists: generators, views of dictionaries, ranges.

use std::{
    cmp::Ordering,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering as AtomicOrder},
    },
    vec,
};

use minijinja::{
    Error, Value,
    value::{DynObject, Enumerator, Object, ObjectRepr, Rest, Tuple, ValueOrKwargs},
};

use super::arguments::bind;
use super::format::{invalid, type_name};
use super::operators;

/// Longest range of Jinja2's sandbox.
const RANGE: i128 = 100_000;

/// What many filters give: it is always true, has no length and no text, and can be gone through once.
#[derive(Debug)]
pub(super) struct Generator {
    items: Mutex<vec::IntoIter<Value>>,
    /// Whether a loop took the items that may have ended before the last one.
    left: AtomicBool,
}

impl Generator {
    pub(super) fn of(items: Vec<Value>) -> Value {
        Value::from_object(Self { items: Mutex::new(items.into_iter()), left: AtomicBool::new(false) })
    }

    /// The items that are left, which stay there.
    pub(super) fn left(&self) -> Vec<Value> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner).as_slice().to_vec()
    }

    /// Notes that a loop has taken the items, and may not have used all.
    pub(super) fn leave(&self) {
        self.left.store(true, AtomicOrder::Relaxed);
    }

    /// An error once a loop may have left items behind.
    fn next(&self) -> Option<Value> {
        if self.left.swap(false, AtomicOrder::Relaxed) {
            let message = "what a filter such as `map` or `select` gives is used again after a loop with `break`: \
                           this is not supported";
            return Some(Value::from(invalid(message)));
        }
        self.items.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let generator = Arc::clone(self);
        Enumerator::Iter(Box::new(std::iter::from_fn(move || generator.next())))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn custom_cmp(self: &Arc<Self>, _other: &DynObject) -> Option<Ordering> {
        // Each is equal to itself alone.
        Some(Ordering::Less)
    }
}

/// Whether a value is one of those here.
pub(super) fn is_lazy(value: &Value) -> bool {
    matches!(type_name(value), "generator" | "range" | "dict_items" | "dict_keys" | "dict_values")
}

/// Which part of a dictionary a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Items,
    Keys,
    Values,
}

/// What `items()`, `keys()` and `values()` of a dictionary give.
#[derive(Debug)]
pub(super) struct View {
    pub(super) part: Part,
    pub(super) dictionary: Value,
}

impl View {
    /// The view that a method gives.
    pub(super) fn of(dictionary: &Value, method: &str) -> Option<Value> {
        let part = match method {
            "items" => Part::Items,
            "keys" => Part::Keys,
            "values" => Part::Values,
            _ => return None,
        };
        Some(Value::from_object(Self { part, dictionary: dictionary.clone() }))
    }

    pub(super) fn items(&self) -> Vec<Value> {
        let pairs = self.dictionary.as_object().and_then(|object| object.try_iter_pairs());
        let item = |(key, value)| match self.part {
            Part::Items => Value::from(Tuple::from([key, value])),
            Part::Keys => key,
            Part::Values => value,
        };
        pairs.into_iter().flatten().map(item).collect()
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self.part {
            Part::Items => "dict_items",
            Part::Keys => "dict_keys",
            Part::Values => "dict_values",
        }
    }
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        self.dictionary.len()
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        let other = other.downcast_ref::<Self>()?;
        let (items, others) = (self.items(), other.items());
        // Keys and items are sets; values are equal to themselves alone.
        let equal = self.part != Part::Values
            && other.part != Part::Values
            && items.len() == others.len()
            && items.iter().all(|item| others.contains(item));
        Some(if equal { Ordering::Equal } else { Ordering::Less })
    }
}

/// `range(start, stop, step)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) start: i128,
    pub(super) stop: i128,
    pub(super) step: i128,
}

impl Range {
    /// The function `range`.
    pub(super) fn call(arguments: Rest<ValueOrKwargs>) -> Result<Value, Error> {
        let values = arguments.into_values();
        if values.last().is_some_and(Value::is_kwargs) {
            return Err(invalid("range takes no arguments by name"));
        }
        let [first, second, step] = bind("range", ["start", "stop", "step"], &values)?;
        let number = |value: Value| match type_name(&value) {
            "int" | "bool" => operators::integer(&value)
                .filter(|number| number.unsigned_abs() < 1 << 64)
                .ok_or_else(|| invalid("range: an integer is too large")),
            name => Err(invalid(format!("range takes integers, not {name}"))),
        };
        let first = number(first.ok_or_else(|| super::arguments::missing("range", "stop"))?)?;
        let (start, stop) = match second {
            None => (0, first),
            Some(second) => (first, number(second)?),
        };
        let step = step.map_or(Ok(1), number)?;
        if step == 0 {
            return Err(invalid("range: a step is not 0"));
        }
        let range = Self { start, stop, step };
        if range.count() > RANGE {
            return Err(invalid(format!("a range of more than {RANGE} numbers")));
        }
        Ok(Value::from_object(range))
    }

    fn count(&self) -> i128 {
        let Self { start, stop, step } = self;
        let (distance, step) = if *step > 0 { (stop - start, *step) } else { (start - stop, -step) };
        if distance <= 0 { 0 } else { (distance - 1) / step + 1 }
    }

    fn at(&self, index: i128) -> i128 {
        self.start + index * self.step
    }

    fn numbers(&self) -> impl Iterator<Item = Value> + Send + Sync + use<> {
        let range = *self;
        (0..range.count()).map(move |index| operators::number(range.at(index)))
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let named = match key.as_str() {
            Some("start") => Some(self.start),
            Some("stop") => Some(self.stop),
            Some("step") => Some(self.step),
            _ => None,
        };
        let by_index = || {
            let index = operators::integer(key).filter(|_| type_name(key) != "float")?;
            let index = if index < 0 { index + self.count() } else { index };
            (0..self.count()).contains(&index).then(|| self.at(index))
        };
        named.or_else(by_index).map(operators::number)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Iter(Box::new(self.numbers()))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        usize::try_from(self.count()).ok()
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        let other = other.downcast_ref::<Self>()?;
        Some(if self.numbers().eq(other.numbers()) { Ordering::Equal } else { Ordering::Less })
    }
}

/// `value[start:stop:step]`.
pub(super) fn slice(value: Value, start: Value, stop: Value, step: Value) -> Result<Value, Error> {
    let bound = |value: Value| match type_name(&value) {
        "None" => Ok(None),
        "int" | "bool" => Ok(operators::integer(&value)),
        name => Err(invalid(format!("a part begins and ends at integers, not at {name}"))),
    };
    let value = if type_name(&value) == "iterable" { operators::list(&value)? } else { value };
    let kind = type_name(&value);
    let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return Err(invalid("the step of a part is not 0"));
    }
    let count = value.len().and_then(|count| i128::try_from(count).ok()).unwrap_or(0);
    // As Python's `slice.indices`.
    let (least, most) = if step > 0 { (0, count) } else { (-1, count - 1) };
    let place = |at: i128| if at < 0 { at.saturating_add(count).max(least) } else { at.min(most) };
    let start = start.map_or(if step > 0 { least } else { most }, place);
    let stop = stop.map_or(if step > 0 { most } else { least }, place);
    let part = Range { start, stop, step };
    let indices = (0..part.count()).filter_map(|index| usize::try_from(part.at(index)).ok());
    Ok(match kind {
        "str" => {
            let text = value.as_str().unwrap_or_default();
            let text: String = match (step, usize::try_from(start), usize::try_from(part.count())) {
                (1, Ok(start), Ok(count)) => text.chars().skip(start).take(count).collect(),
                _ => {
                    let chars: Vec<char> = text.chars().collect();
                    indices.filter_map(|index| chars.get(index)).collect()
                }
            };
            if value.is_safe() { Value::from_safe_string(text) } else { Value::from(text) }
        }
        "list" | "tuple" => {
            let items: Vec<Value> = value.try_iter()?.collect();
            let items: Vec<Value> = indices.filter_map(|index| items.get(index).cloned()).collect();
            if kind == "tuple" { Value::from(Tuple::from(items)) } else { Value::from(items) }
        }
        "range" => match value.downcast_object_ref::<Range>() {
            Some(range) => Value::from_object(Range {
                start: range.at(start),
                stop: range.at(stop),
                step: range.step.saturating_mul(step),
            }),
            None => Value::UNDEFINED,
        },
        kind => return Err(invalid(format!("{kind} has no parts"))),
    })
}
