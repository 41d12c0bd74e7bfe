//! How often, and after which waits, a hub is asked again.

use std::{thread, time::Duration};

use super::{HubError, HubEvent, Result};

/// Requests in a row that may come to nothing.
const ATTEMPTS: u32 = 5;

/// The longest wait that a hub may ask for.
const LONGEST: u64 = 60;

/// What is left of the patience with a hub.
#[derive(Debug)]
pub(super) struct Patience {
    failures: u32,
    most: u32,
    /// The first wait; each is twice as long as the one before.
    first: Duration,
}

impl Patience {
    /// Asks again after this time, and then less often.
    pub(super) fn new(first: Duration) -> Self {
        Self { failures: 0, most: ATTEMPTS, first }
    }

    /// Asks once.
    pub(super) fn none() -> Self {
        Self { failures: 0, most: 1, first: Duration::ZERO }
    }

    /// Begins anew: something came.
    pub(super) fn renew(&mut self) {
        self.failures = 0;
    }

    /// Waits for what `error` may be over by, and says so.
    ///
    /// # Errors
    ///
    /// `error` itself, where asking again is no use or was tried often enough.
    pub(super) fn after(&mut self, error: HubError, events: &mut dyn FnMut(HubEvent<'_>)) -> Result<()> {
        let Some(wait) = self.wait(&error) else { return Err(error) };
        events(HubEvent::Waiting { reason: &error.to_string(), wait });
        thread::sleep(wait);
        Ok(())
    }

    fn wait(&mut self, error: &HubError) -> Option<Duration> {
        let asked = match error {
            HubError::Busy { retry_after, .. } => *retry_after,
            HubError::Interrupted { .. } => None,
            _ => return None,
        };
        self.failures += 1;
        let is_left = self.failures < self.most;
        match asked {
            Some(seconds) => (is_left && seconds <= LONGEST).then(|| Duration::from_secs(seconds)),
            None => is_left.then(|| self.first * 2u32.pow(self.failures - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(retry_after: Option<u64>) -> HubError {
        let (endpoint, model) = ("http://h".to_owned(), "org/name".to_owned());
        HubError::Busy { endpoint, model, status: 429, retry_after, message: "status 429".to_owned() }
    }

    #[test]
    fn waits_grow_and_end() {
        let mut patience = Patience::new(Duration::from_secs(1));
        let waits = |patience: &mut Patience, asked| -> Vec<u64> {
            std::iter::from_fn(|| patience.wait(&busy(asked)).map(|wait| wait.as_secs())).collect()
        };
        assert_eq!(waits(&mut patience, None), [1, 2, 4, 8]);
        patience.renew();
        assert_eq!(waits(&mut patience, Some(60)), [60; 4]);
        patience.renew();
        assert_eq!(waits(&mut patience, Some(61)), [0; 0]);
        assert_eq!(waits(&mut Patience::none(), None), [0; 0]);
        let other = HubError::Name { name: String::new() };
        assert_eq!(Patience::new(Duration::ZERO).wait(&other), None);
    }
}
