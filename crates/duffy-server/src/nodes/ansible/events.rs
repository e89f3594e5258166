//! What the callback recorded while a playbook ran; see `duffy_events.py`.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tracing::warn;

/// Bytes of one event that are read; the result of thousands of nodes is smaller.
const EVENT_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    /// A `set_fact` gave `duffy_out` a value.
    Result { value: Value },
    /// A `set_fact` whose values ansible does not show.
    Hidden { task: String },
    /// A task failed, or its host was unreachable.
    #[serde(alias = "unreachable")]
    Failed(TaskFailure),
    /// The callback could not write an event.
    Trouble { msg: String },
    /// From another version of the callback.
    #[serde(other)]
    Unknown,
}

/// A task that failed on a host.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct TaskFailure {
    pub(super) task: String,
    pub(super) host: String,
    pub(super) msg: String,
    #[serde(default)]
    ignored: bool,
}

/// The events of a run that count.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Events {
    /// The last value of `duffy_out`, or why it is not known.
    pub(super) result: Option<Result<Value, String>>,
    /// The last `set_fact` task that was hidden by `no_log`.
    pub(super) hidden: Option<String>,
    /// The last failure that the playbook does not ignore.
    pub(super) failure: Option<TaskFailure>,
}

impl Events {
    /// Reads the events of an ended playbook. There are none if there is no file.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        match File::open(path) {
            Ok(file) => Self::read_from(BufReader::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn read_from(mut file: impl io::BufRead) -> io::Result<Self> {
        let mut events = Self::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut event = file.by_ref().take(EVENT_BYTES);
            if event.read_until(b'\n', &mut line)? == 0 {
                return Ok(events);
            }
            if line.last() != Some(&b'\n') {
                // The event is too long, or the playbook was killed while it was written.
                warn!(bytes = line.len(), "an event of a playbook is cut off");
                events.result = Some(Err("it is cut off".to_owned()));
                return Ok(events);
            }
            match serde_json::from_slice(&line) {
                Ok(event) => events.take(event),
                Err(error) => {
                    warn!(%error, "an event of a playbook cannot be read");
                    events.result = Some(Err(error.to_string()));
                }
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Result { value } => self.result = Some(Ok(value)),
            Event::Hidden { task } => self.hidden = Some(task),
            Event::Failed(failure) if failure.ignored => {}
            Event::Failed(failure) => self.failure = Some(failure),
            Event::Trouble { msg } => self.result = Some(Err(msg)),
            Event::Unknown => warn!("an event of a playbook is of an unknown kind"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Events {
        Events::read_from(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_last_result_counts() {
        let events = read(concat!(
            r#"{"event":"result","host":"h","task":"t","value":1}"#,
            "\n",
            r#"{"event":"result","host":"h","task":"t","value":{"nodes":[]}}"#,
            "\n",
            r#"{"event":"of the future"}"#,
            "\n"
        ));
        assert_eq!(events.result, Some(Ok(json!({"nodes": []}))));
    }

    #[test]
    fn a_result_that_is_not_known_hides_the_one_before() {
        let good = "{\"event\":\"result\",\"value\":1}\n";
        for bad in [
            "{\"event\":\"trouble\",\"msg\":\"m\"}\n",
            "{\"event\":\"result\"}\n",
            "\n",
            "[]\n",
            "\u{fffd}\n",
            "{\"event\":\"result\",\"val",
        ] {
            assert!(
                matches!(read(&format!("{good}{bad}")).result, Some(Err(_))),
                "{bad}"
            );
        }
        assert_eq!(read(&format!("\n{good}")).result, Some(Ok(json!(1))));
    }

    #[test]
    fn the_last_failure_that_is_not_ignored_counts() {
        let failed = |task: &str, ignored| {
            let event = if task == "two" {
                "unreachable"
            } else {
                "failed"
            };
            json!({"event": event, "task": task, "host": "h", "msg": "m", "ignored": ignored})
                .to_string()
                + "\n"
        };
        let events = read(
            &[
                failed("one", false),
                failed("two", false),
                failed("three", true),
            ]
            .concat(),
        );
        assert_eq!(
            events.failure.map(|failure| failure.task).as_deref(),
            Some("two")
        );
    }

    #[test]
    fn no_file_is_no_events() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            Events::read(&dir.path().join("none")).unwrap(),
            Events::default()
        );
        assert!(Events::read(dir.path()).is_err());
    }
}
