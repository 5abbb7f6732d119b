//! What a reader gets to see of a run: a page of tables, and charts.
//!
//! | module | is about |
//! |---|---|
//! | [`targets`] | what portway has to reach, and whether it has |
//! | [`page`] | the page |
//! | [`charts`] | which charts there are |
//! | [`bars`], [`lines`] | drawing them |
//! | [`canvas`] | what both kinds of chart have in common |
//! | [`number`] | numbers in text |

pub mod bars;
pub mod canvas;
pub mod charts;
pub mod lines;
pub mod number;
pub mod page;
pub mod targets;

#[cfg(test)]
pub(crate) mod fixed;
