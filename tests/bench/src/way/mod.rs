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

use crate::{bed::Bed, contenders, sender::Traffic};

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
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Limit,
        Self::Iptables,
        Self::Nft,
        Self::PortwayTc,
        Self::PortwayXdp,
    ];

    /// The contender's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Limit => contenders::LIMIT,
            Self::Iptables => contenders::IPTABLES,
            Self::Nft => contenders::NFT,
            Self::PortwayTc => contenders::PORTWAY_TC,
            Self::PortwayXdp => contenders::PORTWAY_XDP,
        }
    }

    /// Whether packets reach the container translated.
    pub fn translates(self) -> bool {
        self != Self::Limit
    }

    /// Whether the kernel tracks what goes this way.
    pub fn is_tracked(self) -> bool {
        matches!(self, Self::Iptables | Self::Nft)
    }

    /// Publishes as many ports of the container as `traffic` wants, from [`crate::frame::FIRST_PORT`] on.
    ///
    /// # Errors
    /// What it takes is missing, or fails.
    pub fn open(self, bed: &Bed, traffic: Traffic) -> Result<Open> {
        let ports = traffic.ports;
        match self {
            Self::Limit => limit::Limit::open(bed).map(Open::Limit),
            Self::Iptables => iptables::open(bed, ports).map(|()| Open::Host),
            Self::Nft => nft::open(bed, ports).map(|()| Open::Host),
            Self::PortwayTc => portway::open(bed, traffic, portway::LOAD_TC).map(Open::Portway),
            Self::PortwayXdp => portway::open(bed, traffic, portway::LOAD_XDP).map(Open::Portway),
        }
    }
}
