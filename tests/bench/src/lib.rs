//! portway measured: against iptables, nftables, docker-proxy, and against what a bare redirect reaches.
//!
//! | module | is about |
//! |---|---|
//! | [`model`] | what a run has found |
//! | [`stats`] | medians, spreads, and ratios round by round |
//! | [`plan`] | what a scenario and a contender are |
//! | [`runner`] | taking the samples |
//! | [`contenders`] | their names |
//! | [`scenarios`] | the scenarios |
//! | [`machine`] | what it all ran on |
//! | [`output`] | where the results go |

pub mod contenders;
pub mod machine;
pub mod model;
pub mod output;
pub mod plan;
pub mod runner;
pub mod scenarios;
pub mod stats;
