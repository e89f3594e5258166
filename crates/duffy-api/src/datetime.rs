//! Points in time on the wire: ISO 8601 in UTC with a trailing `Z`.

/// A required point in time: microseconds are written only if they are not zero.
pub(crate) mod required {
    use chrono::{DateTime, SecondsFormat, Timelike, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn format(time: &DateTime<Utc>) -> String {
        let format = if time.nanosecond() / 1000 == 0 {
            SecondsFormat::Secs
        } else {
            SecondsFormat::Micros
        };
        time.to_rfc3339_opts(format, true)
    }

    pub(crate) fn serialize<S: Serializer>(time: &DateTime<Utc>, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format(time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<DateTime<Utc>, D::Error> {
        DateTime::<Utc>::deserialize(d)
    }
}

/// A point in time, or `null`.
pub(crate) mod optional {
    use chrono::{DateTime, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub(crate) fn serialize<S: Serializer>(
        time: &Option<DateTime<Utc>>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => s.serialize_str(&super::required::format(time)),
            None => s.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<DateTime<Utc>>, D::Error> {
        Option::<DateTime<Utc>>::deserialize(d)
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeZone, Utc};

    #[test]
    fn microseconds_are_written_when_there_are_any() {
        let whole = Utc.with_ymd_and_hms(2026, 11, 22, 9, 21, 20).unwrap();
        assert_eq!(super::required::format(&whole), "2026-11-22T09:21:20Z");
        let fraction = whole + chrono::TimeDelta::microseconds(213_746);
        assert_eq!(
            super::required::format(&fraction),
            "2026-11-22T09:21:20.213746Z"
        );
        let odd = whole + chrono::TimeDelta::milliseconds(500);
        assert_eq!(super::required::format(&odd), "2026-11-22T09:21:20.500000Z");
    }
}
