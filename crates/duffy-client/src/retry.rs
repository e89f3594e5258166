//! Repeats a call whose answer was lost, where that does no harm.

use std::time::Duration;

use crate::{Client, ClientError, Reply};

/// The pauses before a call is repeated, in seconds. Their sum is less than the time for which the server keeps a session for a
/// client that hung up.
const PAUSES: [u64; 4] = [1, 2, 4, 8];

/// Returns a new key for a request that may be repeated.
pub fn new_key() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl ClientError {
    /// Whether the server may have carried out the request, and its answer was lost on the way, or at a proxy (502, 504).
    pub fn is_lost_answer(&self) -> bool {
        matches!(self, Self::Broken { .. }) || matches!(self.status(), Some(502 | 504))
    }

    /// Returns the HTTP status of the answer, if there was one.
    fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            Self::NotJson { status, .. } | Self::Unexpected { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// Makes a call until there is an answer, five times at most. The call must do no harm if it is done twice. `ask` gets whether
/// this is a repetition, and `on_pause` the error and the pause that follows it.
///
/// An answer is final, also an error. So is a failure of the first connection: no request was sent, and the address may be
/// wrong. A later connection may fail because the server is restarting. A timeout is final too.
pub fn repeat<T>(
    ask: impl FnMut(bool) -> Result<T, ClientError>,
    on_pause: impl FnMut(&ClientError, Duration),
) -> Result<T, ClientError> {
    repeat_after(PAUSES.map(Duration::from_secs), ask, on_pause)
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
    /// Retires a session, as [`Client::retire_session`] does, and repeats the call if the answer is lost. If the session is
    /// already retired then, the first call did that. This returns the answer that the first call would have had.
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

    /// Gives these answers one after the other. Returns the last one that was used, and their number.
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
    fn calls_whose_answers_are_lost_are_repeated() {
        assert!(matches!(ask(vec![Ok(1)]), (Ok(1), 1)));
        let answers = vec![Err(broken()), Err(no_connection()), Err(page(502)), Ok(1)];
        assert!(matches!(ask(answers), (Ok(1), 4)));
        let answers = (0..5).map(|_| Err(page(504))).collect();
        assert!(matches!(ask(answers), (Err(_), 5)));
    }

    #[test]
    fn answers_and_failures_of_the_first_connection_are_final() {
        assert!(matches!(ask(vec![Err(no_connection())]), (Err(_), 1)));
        for status in [400, 500, 503] {
            assert!(matches!(ask(vec![Err(page(status))]), (Err(_), 1)));
            let answers = vec![Err(broken()), Err(page(status))];
            assert!(matches!(ask(answers), (Err(_), 2)));
        }
    }
}
