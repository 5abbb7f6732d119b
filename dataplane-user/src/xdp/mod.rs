//! XDP in front of TC: whether it is taken, where, and what containers need for it.
//!
//! | module | its job |
//! |---|---|
//! | [`choice`] | whether an interface gets the program, and why. Pure |
//! | [`external`] | attaching it to external interfaces, and keeping it there |
//! | [`link`] | the link by which it is attached |
//! | [`containers`] | making containers' veth pairs take redirected frames, and undoing that |
//! | [`pass`] | the program that containers take them by in place of GRO |
//! | [`pairs`] | containers' veth pairs and network namespaces |
//! | [`report`] | what `status` says of it |
//!
//! The program passes to TC whatever it does not do, so that everything here can come late, fail, or be
//! missing: packets then take TC's way.

pub mod choice;
pub mod containers;
pub mod external;
pub mod link;
pub mod pairs;
pub mod pass;
pub mod report;
