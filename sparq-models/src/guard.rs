//! Panics of libraries as errors.

use std::{
    any::Any,
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

thread_local! {
    /// How many calls of [`guard`] this thread is inside of.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Runs code of a library that may panic on malformed input, and hands its message back where it does.
///
/// Nothing is printed about such a panic. Other threads, and panics outside of such calls, are reported as
/// before. What the code was changing when it panicked must not be used again.
pub(crate) fn guard<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !is_quiet() {
                before(info);
            }
        }));
    });
    DEPTH.set(DEPTH.get() + 1);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(|payload| message(payload.as_ref()))
}

/// Whether this thread reports no panics.
fn is_quiet() -> bool {
    DEPTH.get() > 0
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        assert_eq!(guard(|| 3), Ok(3));
        let number = 7;
        assert_eq!(guard(|| -> u32 { panic!("bad piece {number}") }), Err("bad piece 7".to_owned()));
        assert_eq!(guard(|| -> u32 { panic!("plain") }), Err("plain".to_owned()));
        assert_eq!(guard(|| -> u32 { panic::panic_any(3) }), Err("no message".to_owned()));
        let empty: Vec<u32> = Vec::new();
        assert!(guard(|| empty[number]).unwrap_err().contains("index out of bounds"));
    }

    #[test]
    fn panics_are_quiet_inside_of_a_call_and_on_its_thread_only() {
        assert!(!is_quiet());
        let elsewhere = || std::thread::spawn(is_quiet).join().unwrap();
        let inside = guard(|| {
            assert!(guard(|| -> () { panic!("inner") }).is_err());
            (is_quiet(), elsewhere())
        });
        assert_eq!(inside, Ok((true, false)));
        assert!(guard(|| -> () { panic!("outer") }).is_err());
        assert!(!is_quiet());
    }
}
