//! How values are written: serde adapters for types that read and print themselves as text, and the
//! text forms of durations and CIDRs.
//!
//! Every parse error is a phrase that fits after "expected", because the schema check prints it so.

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serializer, de};

/// Ten years. Longer ones are typing errors, and an [`Instant`](std::time::Instant) plus one may panic.
const MAX_DURATION: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// Reads `"30m"`, `"1h 30m"`, `"1500ms"`, `"0s"`; at most ten years.
///
/// # Errors
/// What was expected instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= MAX_DURATION => Ok(duration),
        Ok(_) => Err("at most ten years".to_owned()),
        Err(_) => Err("a duration such as \"30m\", \"10s\" or \"1h 30m\"".to_owned()),
    }
}

/// Prints a duration in the largest unit up to hours that divides it: `"90m"`, `"24h"`, `"0s"`.
pub fn format_duration(duration: Duration) -> String {
    const UNITS: [(u128, &str); 6] = [
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    UNITS
        .iter()
        .find(|(unit, _)| nanos.is_multiple_of(*unit))
        .map_or_else(String::new, |(unit, word)| {
            format!("{}{word}", nanos / unit)
        })
}

/// `None` for a zero duration: what "0s" means for every limit documented as "0s: never".
pub const fn unless_zero(duration: Duration) -> Option<Duration> {
    if duration.is_zero() {
        None
    } else {
        Some(duration)
    }
}

/// Reads a CIDR such as `10.0.0.0/8`, or a single address.
///
/// # Errors
/// What was expected instead.
pub(super) fn parse_cidr(text: &str) -> Result<IpNet, String> {
    IpNet::from_str(text)
        .or_else(|_| IpAddr::from_str(text).map(IpNet::from))
        .map_err(|_| "an address range such as \"10.0.0.0/8\"".to_owned())
}

fn string<'de, D: Deserializer<'de>>(de: D) -> Result<String, D::Error> {
    String::deserialize(de)
}

fn parsed<T, E: de::Error>(result: Result<T, String>) -> Result<T, E> {
    result.map_err(|expected| E::custom(format_args!("expected {expected}")))
}

/// A duration.
pub(super) mod duration {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        v: &Duration,
        ser: S,
    ) -> Result<S::Ok, S::Error> {
        ser.serialize_str(&format_duration(*v))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        de: D,
    ) -> Result<Duration, D::Error> {
        parsed(parse_duration(&string(de)?))
    }
}

/// A duration that a rule may leave out.
pub(super) mod some_duration {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        v: &Option<Duration>,
        ser: S,
    ) -> Result<S::Ok, S::Error> {
        match v {
            Some(duration) => ser.serialize_str(&format_duration(*duration)),
            None => ser.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        de: D,
    ) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(de).map(Some)
    }
}

/// A value that is unset when it is empty text.
pub(super) mod unset_if_empty {
    use super::*;

    pub(in super::super) fn serialize<T: Display, S: Serializer>(
        v: &Option<T>,
        ser: S,
    ) -> Result<S::Ok, S::Error> {
        match v {
            Some(value) => ser.collect_str(value),
            None => ser.serialize_str(""),
        }
    }

    pub(in super::super) fn deserialize<'de, T, D>(de: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        match string(de)?.as_str() {
            "" => Ok(None),
            text => parsed(T::from_str(text).map_err(|e| e.to_string())).map(Some),
        }
    }
}

/// A path that is unset when it is empty.
pub(super) mod some_path {
    use std::path::PathBuf;

    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        v: &Option<PathBuf>,
        ser: S,
    ) -> Result<S::Ok, S::Error> {
        let text = v.as_ref().map(|path| path.to_string_lossy());
        ser.serialize_str(text.as_deref().unwrap_or_default())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        de: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        let text = string(de)?;
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }
}

/// An address range that may be left out.
pub(super) mod some_cidr {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        v: &Option<IpNet>,
        ser: S,
    ) -> Result<S::Ok, S::Error> {
        match v {
            Some(net) => ser.collect_str(net),
            None => ser.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        de: D,
    ) -> Result<Option<IpNet>, D::Error> {
        parsed(parse_cidr(&string(de)?)).map(Some)
    }
}

/// A list of address ranges.
pub(super) mod cidrs {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        v: &[IpNet],
        ser: S,
    ) -> Result<S::Ok, S::Error> {
        ser.collect_seq(v.iter().map(IpNet::to_string))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        de: D,
    ) -> Result<Vec<IpNet>, D::Error> {
        let texts = Vec::<String>::deserialize(de)?;
        texts.iter().map(|text| parsed(parse_cidr(text))).collect()
    }
}

/// A list of pin reasons by their words.
pub(super) mod pin_reasons {
    use super::*;
    use crate::reason::PinReason;

    /// The reason that goes by this word.
    pub(in super::super) fn parse(text: &str) -> Result<PinReason, String> {
        PinReason::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| {
                let words: Vec<_> = PinReason::ALL.iter().map(|r| r.as_str()).collect();
                format!("pin reasons, each one of: {}", words.join(", "))
            })
    }

    pub(in super::super) fn serialize<S: Serializer>(
        v: &[PinReason],
        ser: S,
    ) -> Result<S::Ok, S::Error> {
        ser.collect_seq(v.iter().map(|reason| reason.as_str()))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        de: D,
    ) -> Result<Vec<PinReason>, D::Error> {
        let texts = Vec::<String>::deserialize(de)?;
        texts.iter().map(|text| parsed(parse(text))).collect()
    }
}

/// Serde by way of `Display` and `FromStr<Err = String>`.
macro_rules! serde_as_text {
    ($($type:ty),+ $(,)?) => { $(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
                ser.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(de)?;
                text.parse()
                    .map_err(|expected: String| serde::de::Error::custom(format_args!("expected {expected}")))
            }
        }
    )+ };
}
pub(super) use serde_as_text;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_in_their_largest_exact_unit() {
        for (nanos, text) in [
            (0, "0s"),
            (1_800_000_000_000, "30m"),
            (86_400_000_000_000, "24h"),
            (5_400_000_000_000, "90m"),
            (1_500_000_000, "1500ms"),
            (1_000, "1us"),
            (7, "7ns"),
        ] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(format_duration(duration), text);
            assert_eq!(parse_duration(text), Ok(duration));
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "30",
            "soon",
            "-1s",
            "auto",
            "11y",
            "99999999999999999999s",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
    }

    #[test]
    fn a_single_address_is_a_range_of_one() {
        assert_eq!(parse_cidr("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert_eq!(parse_cidr("::1").unwrap().to_string(), "::1/128");
        assert_eq!(parse_cidr("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert!(parse_cidr("10.0.0.0/33").is_err());
    }

    #[test]
    fn every_pin_reason_can_be_filtered_by_its_word() {
        use crate::reason::PinReason;
        for reason in PinReason::ALL {
            assert_eq!(pin_reasons::parse(reason.as_str()), Ok(*reason));
        }
        assert!(
            pin_reasons::parse("Routine")
                .unwrap_err()
                .contains("routine")
        );
    }
}
