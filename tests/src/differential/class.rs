//! Classes of traffic, each of which can be left out.

use std::{env, fmt, str::FromStr};

use anyhow::{Context, Result};

use super::{party::End, step::Twist};

/// Names further classes to play, or with a minus those not to play: `icmp-errors,-vlan`.
pub const VARIABLE: &str = "PORTWAY_DIFFERENTIAL_CLASSES";

/// Declares [`Class`] with each one's word, and whether it is the same with flows that portway's own table
/// admits, and with those that netfilter does.
macro_rules! classes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $word:literal, $direct:literal, $netfilter:literal;)+) => {
        /// A class of traffic.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Class {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Class {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Whether portway promises to treat it as the kernel does.
            const fn is_promised(self, admission: Admission) -> bool {
                let (direct, netfilter) = match self { $(Self::$variant => ($direct, $netfilter),)+ };
                match admission {
                    Admission::Direct => direct,
                    Admission::Netfilter => netfilter,
                }
            }
        }
    };
}

classes! {
    /// IPv6.
    Ipv6 = "ipv6", true, true;
    /// Times to live of 0 to 2.
    Ttl = "ttl", true, true;
    /// Packets of clients with IP options.
    OptionsIn = "options-in", false, true;
    /// Packets of containers with IP options.
    OptionsOut = "options-out", false, true;
    /// VLAN tags that are not for the host.
    Vlan = "vlan", true, true;
    /// Priority tags of clients.
    PriorityIn = "priority-in", true, true;
    /// Priority tags of containers.
    PriorityOut = "priority-out", true, true;
    /// Frames of clients to other stations.
    StationsIn = "stations-in", true, true;
    /// Frames of containers to other stations.
    StationsOut = "stations-out", true, true;
    /// Lengths and offsets that contradict each other.
    Malformed = "malformed", true, true;
    /// Checksums left to the hardware, and packets to be segmented by it.
    Offload = "offload", true, true;
    /// Fragments.
    Fragments = "fragments", true, true;
    /// Fragments of what may be larger than the container's MTU.
    LongFragments = "long-fragments", false, true;
    /// ICMP errors with a wrong checksum.
    Checksums = "checksums", false, false;
    /// ICMP errors.
    IcmpErrors = "icmp-errors", true, true;
    /// Resets that are not where their connection is. A conntrack that leaves most segments to portway cannot know
    /// where that is.
    ForgedResets = "forged-resets", true, false;
    /// Conversations that containers begin.
    Outbound = "outbound", true, true;
    /// Datagrams of a container's own from a published port, to a client that sends to it from the same.
    Crossed = "crossed", false, false;
    /// The same over TCP. Such connections can end at docker-proxy, whose numbers nobody knows: no two
    /// hosts do the same.
    CrossedTcp = "crossed-tcp", false, false;
    /// Clients under addresses that are not theirs.
    Impostors = "impostors", true, true;
    /// Packets to other places than the host's own addresses.
    Elsewhere = "elsewhere", true, true;
    /// Several conversations of one client whose replies look alike.
    Collisions = "collisions", true, true;
    /// Such conversations with packets of which either portway or the kernel takes note, and not both.
    Split = "split", false, false;
    /// Such conversations one of which is refused.
    RefusedAlike = "refused-alike", false, false;
}

/// Who admits flows, as `--admission` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// portway's table of published ports.
    Direct,
    /// The host's firewall.
    Netfilter,
}

impl fmt::Display for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Netfilter => "netfilter",
        })
    }
}

/// Which classes are played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes(Vec<Class>);

impl Class {
    /// Whether the kernel alone makes the same of it every time.
    fn is_determined(self) -> bool {
        self != Self::CrossedTcp
    }

    /// The class of a twist, if it belongs to one that can be left out.
    pub fn of_twist(twist: &Twist, from: End) -> Option<Self> {
        let is_in = from == End::Client;
        Some(match twist {
            Twist::Ttl(_) => Self::Ttl,
            Twist::Options if is_in => Self::OptionsIn,
            Twist::Options => Self::OptionsOut,
            Twist::Tags(tags) if tags.as_slice() != [0] => Self::Vlan,
            Twist::Tags(_) if is_in => Self::PriorityIn,
            Twist::Tags(_) => Self::PriorityOut,
            Twist::OtherMac | Twist::BroadcastMac | Twist::MulticastMac if is_in => {
                Self::StationsIn
            }
            Twist::OtherMac | Twist::BroadcastMac | Twist::MulticastMac => Self::StationsOut,
            Twist::UdpLength(_) | Twist::DataOffset(_) => Self::Malformed,
            Twist::Unfinished | Twist::Segments(_) => Self::Offload,
            Twist::Fragments(..) => Self::Fragments,
            Twist::Tos(_)
            | Twist::DontFragment
            | Twist::Padding(_)
            | Twist::NoChecksum
            | Twist::Flags(_)
            | Twist::TcpOptions(_)
            | Twist::Copies(_) => return None,
        })
    }
}

impl FromStr for Class {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Self> {
        let class = Self::ALL.iter().find(|class| class.word() == word);
        class
            .copied()
            .with_context(|| format!("no class of traffic {word:?}"))
    }
}

impl Classes {
    /// Those that portway promises to treat as the kernel does, changed by [`VARIABLE`].
    ///
    /// # Errors
    /// It names one that does not exist.
    pub fn chosen(admission: Admission) -> Result<Self> {
        let mut classes = Class::ALL.to_vec();
        classes.retain(|class| class.is_promised(admission));
        let changes = env::var(VARIABLE).unwrap_or_default();
        for change in changes.split(',').filter(|change| !change.is_empty()) {
            match change.strip_prefix('-') {
                Some("all") => classes.clear(),
                None if change == "all" => classes = Self::determined().0,
                Some(word) => {
                    let unwanted = word.parse()?;
                    classes.retain(|class| *class != unwanted);
                }
                None => classes.push(change.parse()?),
            }
        }
        Ok(Self(classes))
    }

    /// Every one that is the same in any two hosts.
    pub fn determined() -> Self {
        let classes = Class::ALL.iter().copied();
        Self(classes.filter(|class| class.is_determined()).collect())
    }

    /// Whether all of some classes are played.
    pub fn have(&self, classes: &[Class]) -> bool {
        classes.iter().all(|class| self.has(*class))
    }

    /// Whether a class is played.
    pub fn has(&self, class: Class) -> bool {
        self.0.contains(&class)
    }
}

impl fmt::Display for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left_out = Class::ALL.iter().filter(|class| !self.has(**class));
        let words: Vec<_> = left_out.map(|class| class.word()).collect();
        if words.is_empty() {
            f.write_str("every class of traffic")
        } else {
            write!(f, "every class of traffic but {}", words.join(", "))
        }
    }
}
