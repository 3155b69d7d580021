//! What a proxy can do to connections, as data: printed in one line, read back from it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::env::parse_duration;
use crate::error::{CoreResult, Error, ErrorKind};

/// Which of the two streams of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Towards {
    /// What the client sends.
    Server,
    /// What the server answers.
    Client,
}

/// The kinds of faults of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum WireKind {
    /// Bytes arrive later, by `least` to `most`; the bandwidth stays.
    Latency {
        /// The shortest delay.
        least: Duration,
        /// The longest delay.
        most: Duration,
    },
    /// No more bytes a second than this, in each direction.
    Bandwidth {
        /// Bytes per second.
        bytes_per_second: u64,
    },
    /// Bytes arrive in pieces no longer than this.
    Slice {
        /// Bytes of a piece.
        bytes: u64,
        /// Time between two pieces.
        pause: Duration,
    },
    /// Nothing moves until it is healed; then everything arrives in order.
    Stall,
    /// Bytes are taken and lost. Healing resets the connections that lost some: a stream cannot have a hole.
    BlackHole,
    /// A bit in every so many bytes arrives turned over.
    Corrupt {
        /// Bytes per turned bit.
        every: u64,
    },
    /// The connection is reset (RST to both sides) once this many bytes of a stream have passed; 0 is at once.
    Reset {
        /// Bytes that pass, counted from the begin of the connection.
        after: u64,
    },
    /// A stream ends (FIN to its receiver) once this many bytes of it have passed; the other stream lives on.
    HalfClose {
        /// Bytes that pass, counted from the begin of the connection.
        after: u64,
    },
    /// New connections are refused by the kernel; the port stays the proxy's.
    Refuse,
    /// New connections are answered by nobody, so that connecting takes until the client gives up.
    ConnectTimeout,
    /// New connections are accepted and reset.
    AcceptReset,
    /// New connections are accepted, and served only after this time.
    AcceptDelay {
        /// The time.
        delay: Duration,
    },
    /// New connections are accepted and hear nothing until it is healed.
    Silence,
}

/// A fault of a wire: what, in which direction, for which share of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a fault does nothing before it is applied"]
pub struct WireFault {
    #[serde(flatten)]
    kind: WireKind,
    towards: Option<Towards>,
    /// Of 1,000 connections.
    share: u16,
}

impl WireFault {
    /// A fault of this kind for both directions and all connections.
    pub fn new(kind: WireKind) -> Self {
        Self { kind, towards: None, share: 1_000 }
    }

    /// Bytes arrive this much later.
    pub fn latency(delay: Duration) -> Self {
        Self::latency_between(delay, delay)
    }

    /// Bytes arrive later by a time between these two, which the seed decides for each 4 KiB of a stream.
    pub fn latency_between(least: Duration, most: Duration) -> Self {
        Self::new(WireKind::Latency { least, most })
    }

    /// No more than this many bytes a second.
    pub fn bandwidth(bytes_per_second: u64) -> Self {
        Self::new(WireKind::Bandwidth { bytes_per_second })
    }

    /// Pieces of at most this many bytes, this much apart.
    pub fn slice(bytes: u64, pause: Duration) -> Self {
        Self::new(WireKind::Slice { bytes, pause })
    }

    /// Nothing moves until it is healed.
    pub fn stall() -> Self {
        Self::new(WireKind::Stall)
    }

    /// Bytes are taken and lost.
    pub fn black_hole() -> Self {
        Self::new(WireKind::BlackHole)
    }

    /// A turned bit in every so many bytes, where the seed says.
    pub fn corrupt(every: u64) -> Self {
        Self::new(WireKind::Corrupt { every })
    }

    /// Connections are reset at once.
    pub fn reset() -> Self {
        Self::reset_after(0)
    }

    /// Connections are reset after this many bytes of a stream.
    pub fn reset_after(bytes: u64) -> Self {
        Self::new(WireKind::Reset { after: bytes })
    }

    /// Streams end after this many bytes.
    pub fn half_close_after(bytes: u64) -> Self {
        Self::new(WireKind::HalfClose { after: bytes })
    }

    /// New connections are refused.
    pub fn refuse() -> Self {
        Self::new(WireKind::Refuse)
    }

    /// Connecting times out.
    pub fn connect_timeout() -> Self {
        Self::new(WireKind::ConnectTimeout)
    }

    /// New connections are accepted and reset.
    pub fn accept_reset() -> Self {
        Self::new(WireKind::AcceptReset)
    }

    /// New connections are served only after this time.
    pub fn accept_delay(delay: Duration) -> Self {
        Self::new(WireKind::AcceptDelay { delay })
    }

    /// New connections hear nothing.
    pub fn silence() -> Self {
        Self::new(WireKind::Silence)
    }

    /// Only one direction. Faults of accepting have none and ignore it.
    pub fn towards(mut self, towards: Towards) -> Self {
        self.towards = Some(towards);
        self
    }

    /// Only this many of 1,000 connections, which the seed picks.
    pub fn share(mut self, permille: u16) -> Self {
        self.share = permille;
        self
    }

    /// What it does.
    #[must_use]
    pub fn kind(&self) -> WireKind {
        self.kind
    }

    /// How many of 1,000 connections it hits.
    #[must_use]
    pub fn permille(&self) -> u16 {
        self.share
    }

    /// True when it acts on this stream of a connection.
    #[must_use]
    pub fn acts_towards(&self, towards: Towards) -> bool {
        !self.is_of_accepting() && self.towards.is_none_or(|only| only == towards)
    }

    /// True when every byte still arrives, in order and unchanged, though later.
    #[must_use]
    pub fn keeps_bytes(&self) -> bool {
        use WireKind::{Bandwidth, Latency, Slice, Stall};
        matches!(self.kind, Latency { .. } | Bandwidth { .. } | Slice { .. } | Stall)
    }

    /// True when it acts on new connections, not on streams.
    #[must_use]
    pub fn is_of_accepting(&self) -> bool {
        use WireKind::{AcceptDelay, AcceptReset, ConnectTimeout, Refuse, Silence};
        matches!(self.kind, Refuse | ConnectTimeout | AcceptReset | AcceptDelay { .. } | Silence)
    }

    /// What a bite of it is.
    pub(super) fn unit(&self) -> &'static str {
        match self.kind {
            WireKind::Latency { .. } => "bytes delayed",
            WireKind::Bandwidth { .. } => "bytes paced",
            WireKind::Slice { .. } => "pieces cut",
            WireKind::Stall => "streams held with bytes waiting",
            WireKind::BlackHole => "bytes lost",
            WireKind::Corrupt { .. } => "bits turned",
            WireKind::Reset { .. } | WireKind::AcceptReset => "connections reset",
            WireKind::HalfClose { .. } => "streams ended",
            WireKind::Refuse => "times the door was shut, proven by a refusal",
            WireKind::ConnectTimeout => "times the door was shut, proven by a full backlog",
            WireKind::AcceptDelay { .. } => "connections delayed",
            WireKind::Silence => "connections left in silence",
        }
    }

    /// Holds when its numbers make sense.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the number.
    pub fn check(&self) -> CoreResult {
        let wrong = match self.kind {
            WireKind::Latency { least, most } if least > most => "its longest delay is below its shortest",
            WireKind::Bandwidth { bytes_per_second: 0 } => "0 bytes a second is a stall: use that",
            WireKind::Slice { bytes: 0, .. } => "a piece has at least one byte",
            WireKind::Corrupt { every: 0 } => "a turned bit needs at least one byte",
            WireKind::Refuse | WireKind::ConnectTimeout if self.share < 1_000 => {
                "the kernel refuses everybody or nobody: use accept_reset for a share"
            }
            _ if self.share > 1_000 => "its share is of 1,000",
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Config, format!("the fault `{self}` makes no sense: {wrong}")))
    }
}

/// A duration as [`parse_duration`] reads it.
pub(in crate::fault) fn duration_text(duration: Duration) -> String {
    format!("{}ms", duration.as_nanos() as f64 / 1e6)
}

impl fmt::Display for WireFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            WireKind::Latency { least, most } if least == most => write!(f, "latency {}", duration_text(least)),
            WireKind::Latency { least, most } => {
                write!(f, "latency {}..{}", duration_text(least), duration_text(most))
            }
            WireKind::Bandwidth { bytes_per_second } => write!(f, "bandwidth {bytes_per_second}"),
            WireKind::Slice { bytes, pause } => write!(f, "slice {bytes} {}", duration_text(pause)),
            WireKind::Stall => f.write_str("stall"),
            WireKind::BlackHole => f.write_str("black-hole"),
            WireKind::Corrupt { every } => write!(f, "corrupt {every}"),
            WireKind::Reset { after } => write!(f, "reset {after}"),
            WireKind::HalfClose { after } => write!(f, "half-close {after}"),
            WireKind::Refuse => f.write_str("refuse"),
            WireKind::ConnectTimeout => f.write_str("connect-timeout"),
            WireKind::AcceptReset => f.write_str("accept-reset"),
            WireKind::AcceptDelay { delay } => write!(f, "accept-delay {}", duration_text(delay)),
            WireKind::Silence => f.write_str("silence"),
        }?;
        match self.towards {
            Some(Towards::Server) => f.write_str(" to server"),
            Some(Towards::Client) => f.write_str(" to client"),
            None => Ok(()),
        }?;
        if self.share < 1_000 { write!(f, " of {}", self.share) } else { Ok(()) }
    }
}

impl FromStr for WireFault {
    type Err = Error;

    /// Reads what `Display` writes: `latency 20ms..40ms to client of 500`.
    fn from_str(text: &str) -> CoreResult<Self> {
        let mut words = text.split_whitespace().peekable();
        let unknown = || Error::new(ErrorKind::Config, format!("`{text}` is no fault of a wire"));
        let kind = words.next().ok_or_else(unknown)?;
        let mut next = || words.next().ok_or_else(unknown);
        let number = |word: &str| word.parse::<u64>().map_err(|_| unknown());
        let mut fault = match kind {
            "latency" => {
                let word = next()?;
                let (least, most) = word.split_once("..").unwrap_or((word, word));
                Self::latency_between(parse_duration(least)?, parse_duration(most)?)
            }
            "bandwidth" => Self::bandwidth(number(next()?)?),
            "slice" => Self::slice(number(next()?)?, parse_duration(next()?)?),
            "stall" => Self::stall(),
            "black-hole" => Self::black_hole(),
            "corrupt" => Self::corrupt(number(next()?)?),
            "reset" => Self::reset_after(number(next()?)?),
            "half-close" => Self::half_close_after(number(next()?)?),
            "refuse" => Self::refuse(),
            "connect-timeout" => Self::connect_timeout(),
            "accept-reset" => Self::accept_reset(),
            "accept-delay" => Self::accept_delay(parse_duration(next()?)?),
            "silence" => Self::silence(),
            _ => return Err(unknown()),
        };
        while let Some(word) = words.next() {
            fault = match (word, words.next()) {
                ("to", Some("server")) => fault.towards(Towards::Server),
                ("to", Some("client")) => fault.towards(Towards::Client),
                ("of", Some(share)) => fault.share(share.parse().map_err(|_| unknown())?),
                _ => return Err(unknown()),
            };
        }
        fault.check().map(|()| fault)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Towards, WireFault};

    #[test]
    fn every_fault_is_read_back_from_its_line() {
        let ms = Duration::from_millis;
        let all = [
            WireFault::latency(Duration::from_micros(1_500)),
            WireFault::latency_between(ms(20), ms(40)).towards(Towards::Client).share(250),
            WireFault::bandwidth(1_000),
            WireFault::slice(3, ms(1)).towards(Towards::Server),
            WireFault::stall(),
            WireFault::black_hole(),
            WireFault::corrupt(100),
            WireFault::reset(),
            WireFault::half_close_after(7),
            WireFault::refuse(),
            WireFault::connect_timeout(),
            WireFault::accept_reset().share(1),
            WireFault::accept_delay(ms(50)),
            WireFault::silence(),
        ];
        for fault in all {
            assert_eq!(fault.to_string().parse::<WireFault>().unwrap(), fault, "{fault}");
            let json = serde_json::to_string(&fault).unwrap();
            assert_eq!(serde_json::from_str::<WireFault>(&json).unwrap(), fault, "{json}");
        }
        assert_eq!(all[1].to_string(), "latency 20ms..40ms to client of 250");
    }

    #[test]
    fn nonsense_is_refused_by_what_is_wrong_with_it() {
        for (text, why) in [
            ("", "is no fault of a wire"),
            ("latency", "is no fault of a wire"),
            ("latency soon", "is not a duration"),
            ("latency 40ms..20ms", "longest delay is below"),
            ("bandwidth 0", "is a stall"),
            ("slice 0 1ms", "at least one byte"),
            ("corrupt 0", "at least one byte"),
            ("stall of 1001", "is of 1,000"),
            ("refuse of 500", "everybody or nobody"),
            ("stall to nobody", "is no fault of a wire"),
            ("stall to", "is no fault of a wire"),
        ] {
            let error = text.parse::<WireFault>().unwrap_err();
            assert!(error.what().contains(why), "{text}: {error:?}");
        }
    }
}
