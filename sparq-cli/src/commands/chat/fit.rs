//! What of a conversation goes into a context that cannot hold all of it.

use sparq_models::chat::{Message, Role};

/// The part of a conversation that the model sees.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fit {
    /// The oldest turns, which it does not see.
    pub(super) dropped: usize,
    /// The prompt.
    pub(super) ids: Vec<u32>,
}

/// The conversation without as many of its oldest turns as it takes to be `longest` tokens long, as `encode`
/// makes them; the last turn and system messages are never dropped. `dropped` of them are gone already.
///
/// # Errors
/// Those of `encode`.
pub(super) fn fit<E>(
    messages: &[Message],
    dropped: usize,
    longest: usize,
    encode: impl Fn(&[Message]) -> Result<Vec<u32>, E>,
) -> Result<Fit, E> {
    let last = messages.iter().filter(|message| message.role == Role::User).count().saturating_sub(1);
    let without = |dropped| {
        let ids = encode(&without_oldest(messages, dropped))?;
        Ok(Fit { dropped, ids })
    };
    let mut best: Fit = without(dropped.min(last))?;
    // The fewest turns, by halves: each try is a pass of the tokenizer over the conversation.
    let (mut low, mut high) = (best.dropped + 1, last);
    if best.ids.len() > longest && low <= high {
        best = without(last)?;
        while low < high {
            let middle = low.midpoint(high);
            let tried = without(middle)?;
            match tried.ids.len() <= longest {
                true => (high, best) = (middle, tried),
                false => low = middle + 1,
            }
        }
    }
    Ok(best)
}

/// The messages without those of the `turns` oldest turns. A turn begins with a message of the user; what
/// comes before the first one belongs to it.
pub(super) fn without_oldest(messages: &[Message], turns: usize) -> Vec<Message> {
    let mut asked = 0;
    let kept = messages.iter().filter(|message| {
        asked += usize::from(message.role == Role::User);
        message.role == Role::System || asked > turns || turns == 0
    });
    kept.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five turns of two messages, each of ten tokens, behind a system message of three.
    fn talk() -> Vec<Message> {
        let turn = |turn| {
            [Message::new(Role::User, format!("{turn}?")), Message::new(Role::Assistant, format!("{turn}!"))]
        };
        let turns = (0..5).flat_map(turn);
        [Message::new(Role::System, "S")].into_iter().chain(turns).collect()
    }

    fn encode(messages: &[Message]) -> Result<Vec<u32>, String> {
        let tokens = |message: &Message| if message.role == Role::System { 3 } else { 10 };
        Ok(vec![0; messages.iter().map(tokens).sum()])
    }

    fn texts(messages: &[Message]) -> String {
        messages.iter().map(|message| message.content.as_str()).collect()
    }

    #[test]
    fn the_oldest_turns_go_and_the_system_message_stays() {
        let talk = talk();
        assert_eq!(texts(&without_oldest(&talk, 0)), "S0?0!1?1!2?2!3?3!4?4!");
        assert_eq!(texts(&without_oldest(&talk, 2)), "S2?2!3?3!4?4!");
        // A greeting goes with the turn behind it.
        let greeting = [&talk[..1], &[Message::new(Role::Assistant, "hi")], &talk[1..]].concat();
        assert_eq!(texts(&without_oldest(&greeting, 0)), "Shi0?0!1?1!2?2!3?3!4?4!");
        assert_eq!(texts(&without_oldest(&greeting, 1)), "S1?1!2?2!3?3!4?4!");
    }

    #[test]
    fn no_more_turns_go_than_have_to() {
        let talk = talk();
        for (longest, dropped) in [(200, 0), (103, 0), (102, 1), (83, 1), (82, 2), (43, 3), (42, 4), (23, 4)]
        {
            let fit = fit(&talk, 0, longest, encode).unwrap();
            assert_eq!((fit.dropped, fit.ids.len()), (dropped, 103 - 20 * dropped), "{longest}");
        }
        // What is gone stays gone, and the last turn stays, though it is too long.
        assert_eq!(fit(&talk, 3, 200, encode).unwrap().dropped, 3);
        assert_eq!(fit(&talk, 9, 1, encode).unwrap(), Fit { dropped: 4, ids: vec![0; 23] });
        assert_eq!(fit(&talk[..1], 0, 1, encode).unwrap(), Fit { dropped: 0, ids: vec![0; 3] });
    }

    #[test]
    fn an_error_of_the_template_is_passed_on() {
        let refuse = |_: &[Message]| Err("refused");
        assert_eq!(fit(&talk(), 0, 10, refuse), Err("refused"));
    }
}
