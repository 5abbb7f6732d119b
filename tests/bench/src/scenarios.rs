//! Every scenario there is.

use crate::{plan::Plan, program, rate};

/// In the order in which they are run and reported.
pub fn all() -> Vec<Plan> {
    rate::plans().into_iter().chain(program::plans()).collect()
}
