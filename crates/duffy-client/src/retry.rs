//! Asking again when an answer was lost, where that does no harm.

use std::time::Duration;

use crate::{Client, ClientError, Reply};

/// The pauses before an answer is asked for again. Together they are shorter than the server
/// keeps a session for a client that hung up.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// A key for a request that may have to be repeated.
pub fn new_key() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl ClientError {
    /// Whether the request may have been carried out, and only its answer was lost: on the way,
    /// or at a proxy (502, 504).
    pub fn is_lost_answer(&self) -> bool {
        matches!(self, ClientError::Broken { .. }) || matches!(self.status(), Some(502 | 504))
    }

    /// HTTP status of the answer, if there was one.
    fn status(&self) -> Option<u16> {
        match self {
            ClientError::Refused(refusal) => Some(refusal.status),
            ClientError::NotJson { status, .. } | ClientError::Unexpected { status, .. } => {
                Some(*status)
            }
            _ => None,
        }
    }
}

/// Asks until there is an answer, five times at most. Only for what does no harm when it is done
/// twice. `ask` is told whether it asks again; `on_pause` is told before each pause what went
/// wrong and how long the pause is.
///
/// An answer, good or bad, is final. So is a first connection that does not come about: nothing
/// was asked then, and the address may be wrong. Later the server may be starting again. A call
/// that took longer than its caller wants to wait is final too.
pub fn repeat<T>(
    ask: impl FnMut(bool) -> Result<T, ClientError>,
    on_pause: impl FnMut(&ClientError, Duration),
) -> Result<T, ClientError> {
    repeat_after(PAUSES, ask, on_pause)
}

fn repeat_after<T>(
    pauses: [Duration; 4],
    mut ask: impl FnMut(bool) -> Result<T, ClientError>,
    mut on_pause: impl FnMut(&ClientError, Duration),
) -> Result<T, ClientError> {
    let mut result = ask(false);
    for (number, pause) in pauses.into_iter().enumerate() {
        let Err(error) = &result else {
            break;
        };
        let restarting = number > 0 && matches!(error, ClientError::Connect { .. });
        if !error.is_lost_answer() && !restarting {
            break;
        }
        on_pause(error, pause);
        #[expect(clippy::disallowed_methods, reason = "the client has no runtime")]
        std::thread::sleep(pause);
        result = ask(true);
    }
    result
}

impl Client {
    /// Gives a session's nodes back, as [`Client::retire_session`] does, and again when the
    /// answer is lost. When it turns out then that the session is retired already, the first try
    /// did it: the answer is as that one's would have been.
    pub fn retire_session_surely(
        &self,
        id: i64,
        on_pause: impl FnMut(&ClientError, Duration),
    ) -> Result<Reply, ClientError> {
        let ask = |again| match self.retire_session(id) {
            Err(ClientError::Refused(refusal)) if again && refusal.status == 422 => {
                let mut reply = self.show_session(id)?;
                if reply.body["session"]["active"] != false {
                    return Err(ClientError::Refused(refusal));
                }
                if let Some(action) = reply.body.get_mut("action") {
                    *action = "put".into();
                }
                Ok(reply)
            }
            answer => answer,
        };
        repeat(ask, on_pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> ClientError {
        ClientError::Broken {
            url: String::new(),
            cause: String::new(),
            write: true,
        }
    }

    fn no_connection() -> ClientError {
        ClientError::Connect {
            url: String::new(),
            cause: String::new(),
            remedy: "",
        }
    }

    fn page(status: u16) -> ClientError {
        ClientError::NotJson {
            url: String::new(),
            status,
            start: String::new(),
        }
    }

    /// Gives these answers one after the other; the last one that was wanted, and how many were.
    fn ask(answers: Vec<Result<u8, ClientError>>) -> (Result<u8, ClientError>, usize) {
        let mut answers = answers.into_iter();
        let (mut asked, mut breaks) = (0, 0);
        let ask = |again| {
            assert_eq!(again, asked > 0);
            asked += 1;
            answers.next().unwrap()
        };
        let pauses = [Duration::ZERO; 4];
        let result = repeat_after(pauses, ask, |_, _| breaks += 1);
        assert_eq!(asked, breaks + 1);
        (result, asked)
    }

    #[test]
    fn what_was_lost_is_asked_for_again() {
        assert!(matches!(ask(vec![Ok(1)]), (Ok(1), 1)));
        let answers = vec![Err(broken()), Err(no_connection()), Err(page(502)), Ok(1)];
        assert!(matches!(ask(answers), (Ok(1), 4)));
        let answers = (0..5).map(|_| Err(page(504))).collect();
        assert!(matches!(ask(answers), (Err(_), 5)));
    }

    #[test]
    fn answers_and_wrong_addresses_are_final() {
        assert!(matches!(ask(vec![Err(no_connection())]), (Err(_), 1)));
        for status in [400, 500, 503] {
            assert!(matches!(ask(vec![Err(page(status))]), (Err(_), 1)));
            let answers = vec![Err(broken()), Err(page(status))];
            assert!(matches!(ask(answers), (Err(_), 2)));
        }
    }
}
