//! Every scenario there is.

use crate::plan::Plan;

/// In the order in which they are run and reported.
pub fn all() -> Vec<&'static Plan> {
    Vec::new()
}
