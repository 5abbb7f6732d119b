//! The ways from a published port to the container.
//!
//! | module | is about |
//! |---|---|
//! | [`limit`] | a bare redirect |
//! | [`iptables`] | Docker's rules |
//! | [`nft`] | the same with maps |
//! | [`portway`] | portway |

pub mod iptables;
pub mod limit;
pub mod nft;
pub mod portway;

use anyhow::Result;

use crate::{bed::Bed, contenders};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// See [`limit`].
    Limit,
    /// See [`iptables`].
    Iptables,
    /// See [`nft`].
    Nft,
    /// See [`portway`], at the TC hooks.
    PortwayTc,
    /// The same at the XDP hook.
    PortwayXdp,
    /// The same, with `--intake pass`.
    PortwayPass,
    /// See [`portway`], as it is without options on a host that has Docker's rules.
    PortwayAuto,
}

/// What a way is open for.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// How many ports, from [`crate::frame::FIRST_PORT`] on.
    pub ports: u16,
    /// How many flows there are at a time.
    pub flows: u32,
}

/// What keeps a way open.
pub enum Open {
    /// Nothing: the kernel holds it as long as its host is there.
    Host,
    /// An instance of portway, by its name.
    Portway(String),
    /// Attached programs.
    Limit(limit::Limit),
}

impl Way {
    /// Those that rewrite, each alone, and the one that need not.
    pub const ALONE: [Self; 6] = [
        Self::Limit,
        Self::Iptables,
        Self::Nft,
        Self::PortwayTc,
        Self::PortwayXdp,
        Self::PortwayPass,
    ];

    /// The contender's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Limit => contenders::LIMIT,
            Self::Iptables => contenders::IPTABLES,
            Self::Nft => contenders::NFT,
            Self::PortwayTc => contenders::PORTWAY_TC,
            Self::PortwayXdp => contenders::PORTWAY_XDP,
            Self::PortwayPass => contenders::PORTWAY_PASS,
            Self::PortwayAuto => contenders::PORTWAY_AUTO,
        }
    }

    /// Whether packets reach the container translated.
    pub fn translates(self) -> bool {
        self != Self::Limit
    }

    /// Whether packets go by portway's XDP program.
    pub fn is_xdp(self) -> bool {
        matches!(self, Self::PortwayXdp | Self::PortwayPass)
    }

    /// Whether the kernel tracks what goes this way.
    pub fn is_tracked(self) -> bool {
        matches!(self, Self::Iptables | Self::Nft)
    }

    /// Publishes ports of the container.
    ///
    /// # Errors
    /// What it takes is missing, or fails.
    pub fn open(self, bed: &Bed, published: Published) -> Result<Open> {
        match self {
            Self::Limit => limit::Limit::open(bed).map(Open::Limit),
            Self::Iptables => iptables::open(bed, published).map(|()| Open::Host),
            Self::Nft => nft::open(bed, published).map(|()| Open::Host),
            Self::PortwayTc => portway::open_alone(bed, published, "--mode tc").map(Open::Portway),
            Self::PortwayXdp => {
                portway::open_alone(bed, published, "--mode xdp").map(Open::Portway)
            }
            Self::PortwayPass => portway::open_passing(bed, published).map(Open::Portway),
            Self::PortwayAuto => {
                iptables::open(bed, published)?;
                portway::open(bed, published, "").map(Open::Portway)
            }
        }
    }
}
