//! The differential test: two labs alike, one of them with portway, in which the same random stories are
//! played; what every party receives must be the same.
//!
//! | module | is about |
//! |---|---|
//! | [`party`] | who takes part, and what is published |
//! | [`story`], [`step`] | a story: conversations and steps |
//! | [`plausible`] | what may be in one |
//! | [`class`](mod@class) | classes of traffic that can be left out |
//! | [`generate`], [`generate_step`] | random ones |
//! | [`tcp`] | which segment may come next |
//! | [`address`] | a story's addresses |
//! | [`render`], [`wire`] | a step as frames |
//! | [`twin`] | one of the labs |
//! | [`tap`] | a party's raw socket |
//! | [`reassembly`] | putting together what arrives in fragments |
//! | [`packet`], [`seen`] | what arrives, and what of it is compared |
//! | [`play`], [`batch`] | playing stories to both twins |
//! | [`sockets`] | conversations of real sockets |
//! | [`shrink`] | making a story that shows a difference small |
//! | [`run`] | a whole run, and its sum |
//! | [`mutation`] | mistakes that a run must find |

pub mod address;
pub mod batch;
pub mod class;
pub mod generate;
pub mod generate_step;
pub mod mutation;
pub mod packet;
pub mod party;
pub mod plausible;
pub mod play;
pub mod reassembly;
pub mod render;
pub mod run;
pub mod seen;
pub mod shrink;
pub mod sockets;
pub mod step;
pub mod story;
pub mod tap;
pub mod tcp;
pub mod twin;
pub mod wire;
