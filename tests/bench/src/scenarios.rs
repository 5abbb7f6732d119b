//! Every scenario there is.

use crate::{
    control,
    plan::{Measure, Plan},
    program, rate, sockets,
};

/// In the order in which they are run and reported.
pub fn all() -> Vec<Plan> {
    let mut plans = rate::plans();
    plans.extend(sockets::plans());
    plans.extend(control::plans());
    plans.extend(program::plans());
    plans
}

/// What they measure, by the ids that this has in reports.
pub fn measures() -> Vec<(String, Measure)> {
    let measures = all().into_iter().flat_map(|plan| {
        let id = plan.id;
        let measures = plan.measures.into_iter();
        measures.map(move |measure| (measure.id(id), measure))
    });
    measures.collect()
}
