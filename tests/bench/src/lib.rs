//! portway measured: against iptables, nftables, docker-proxy, and against what a bare redirect reaches.
//!
//! | module | is about |
//! |---|---|
//! | [`scenarios`] | the scenarios |
//! | [`rate`], [`program`] | those about packet rates, and about the time that eBPF programs take |
//! | [`sockets`], [`control`] | those about real sockets, and about portway's own commands |
//! | [`contenders`] | the names of those who are compared |
//! | [`plan`], [`runner`] | what a scenario and a contender are; taking the samples |
//! | [`model`], [`stats`] | what a run has found; medians, spreads, and ratios round by round |
//! | [`report`] | the page and the charts of a run |
//! | [`machine`], [`output`] | what it all ran on; where the results go |
//! | [`bed`], [`ethtool`], [`room`] | a lab in which nothing happens by itself; its interfaces; its conntrack |
//! | [`way`] | the ways from a published port to the container |
//! | [`path`] | an open way and its two ends |
//! | [`sender`], [`frame`], [`cpu`] | sending; what is sent; what time that takes |
//! | [`object`] | the bench's eBPF programs |
//! | [`verify`] | is what arrives right? |
//! | [`traffic`], [`busy`] | servers and clients; what time the whole machine takes for them |

pub mod bed;
pub mod busy;
pub mod contenders;
pub mod control;
pub mod cpu;
pub mod ethtool;
pub mod frame;
pub mod machine;
pub mod model;
pub mod object;
pub mod output;
pub mod path;
pub mod plan;
pub mod program;
pub mod rate;
pub mod report;
pub mod room;
pub mod runner;
pub mod scenarios;
pub mod sender;
pub mod sockets;
pub mod stats;
pub mod traffic;
pub mod verify;
pub mod way;
