//! The last lines of a program's output, in bounded memory and fit for a log or a database column.

use std::collections::VecDeque;

/// Bytes of one line that are kept; the rest of a longer line is dropped.
const LINE_BYTES: usize = 2_000;
/// Bytes of all lines together that are kept.
const TOTAL_BYTES: usize = 64 * 1024;

/// Which of the two streams a chunk came from: their half lines are kept apart.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    Out = 0,
    Err = 1,
}

/// Keeps the last lines of two streams in the order in which they were read.
#[derive(Debug)]
pub(super) struct Tail {
    limit: usize,
    lines: VecDeque<String>,
    bytes: usize,
    partial: [Vec<u8>; 2],
    seen: u64,
}

impl Tail {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            lines: VecDeque::new(),
            bytes: 0,
            partial: [Vec::new(), Vec::new()],
            seen: 0,
        }
    }

    /// Bytes taken in so far, kept or not.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// Takes in the next bytes of a stream.
    pub(super) fn push(&mut self, stream: Stream, chunk: &[u8]) {
        self.seen += chunk.len() as u64;
        for piece in chunk.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, ended) = match piece.split_last() {
                Some((b'\n' | b'\r', text)) => (text, true),
                _ => (piece, false),
            };
            let partial = &mut self.partial[stream as usize];
            let room = LINE_BYTES.saturating_sub(partial.len());
            partial.extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                let line = std::mem::take(partial);
                self.keep(&line);
            }
        }
    }

    /// The lines, without a newline at the end. Half lines count as lines.
    pub(super) fn into_text(mut self) -> String {
        for partial in std::mem::take(&mut self.partial) {
            self.keep(&partial);
        }
        Vec::from(self.lines).join("\n")
    }

    fn keep(&mut self, line: &[u8]) {
        let line = clean_line(line);
        if line.is_empty() || self.limit == 0 {
            return;
        }
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > self.limit || self.bytes > TOTAL_BYTES {
            let Some(dropped) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= dropped.len();
        }
    }
}

/// Makes a line plain text: no terminal control sequences, no control characters (PostgreSQL refuses NUL), no
/// invalid UTF-8, no blanks at the end.
fn clean_line(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char == '\u{1b}' {
            // A control sequence ends with a character in @..~, any other one after its intermediates in blank../.
            let last = if chars.next_if_eq(&'[').is_some() {
                '@'..='~'
            } else {
                '0'..='~'
            };
            for char in chars.by_ref() {
                if last.contains(&char) {
                    break;
                }
            }
        } else if char == '\t' || !char.is_control() {
            clean.push(char);
        }
    }
    clean.truncate(clean.trim_end().len());
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail_of(limit: usize, chunks: &[(Stream, &[u8])]) -> String {
        let mut tail = Tail::new(limit);
        for (stream, chunk) in chunks {
            tail.push(*stream, chunk);
        }
        tail.into_text()
    }

    #[test]
    fn keeps_the_last_lines_and_half_lines() {
        let text = tail_of(
            3,
            &[
                (Stream::Out, b"1\n2\n3\n4"),
                (Stream::Out, b"4\n"),
                (Stream::Out, b"5"),
            ],
        );
        assert_eq!(text, "3\n44\n5");
    }

    #[test]
    fn half_lines_of_the_two_streams_do_not_mix() {
        let text = tail_of(
            9,
            &[
                (Stream::Out, b"on"),
                (Stream::Err, b"tw"),
                (Stream::Out, b"e\n"),
                (Stream::Err, b"o\n"),
            ],
        );
        assert_eq!(text, "one\ntwo");
    }

    #[test]
    fn control_sequences_nul_and_bad_utf8_are_made_harmless() {
        assert_eq!(
            tail_of(
                9,
                &[(
                    Stream::Out,
                    b"\x1b[1;31mred\x1b[0m\0 \xff\xfe \x1b(Bx\t.\x07\n"
                )]
            ),
            "red \u{fffd}\u{fffd} x\t."
        );
        assert_eq!(tail_of(9, &[(Stream::Out, b"\x1b[\x1b[\x1b")]), "");
    }

    #[test]
    fn progress_bars_and_windows_line_ends_are_lines() {
        assert_eq!(
            tail_of(2, &[(Stream::Out, b"10%\r20%\r30%\r\n")]),
            "20%\n30%"
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut tail = Tail::new(1_000_000);
        for _ in 0..5_000 {
            tail.push(Stream::Out, &[b'x'; 999]);
            tail.push(Stream::Err, b"0123456789\n");
        }
        assert!(tail.partial[0].len() <= LINE_BYTES);
        assert!(tail.bytes <= TOTAL_BYTES);
        assert_eq!(tail.seen(), 5_000 * 1_010);
    }

    #[test]
    fn no_lines_wanted_means_none_kept() {
        assert_eq!(tail_of(0, &[(Stream::Out, b"a\nb\n")]), "");
    }
}
