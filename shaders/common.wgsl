// What every kernel may use.
//
// Group 1 holds what is not a tensor: binding 0 the dispatch's own parameters `p` (declared by each
// shader), binding 1 the step's, which change from one replay of a recorded program to the next.

struct Step {
    first: u32,          // where this step's samples start in the list of sample indices
    count: u32,          // how many samples it has; further rows of the batch weigh nothing
    weight: f32,         // of each sample in sums over samples
    learning_rate: f32,
    momentum: f32,
    weight_decay: f32,
    padding: vec2<u32>,
}

@group(1) @binding(1) var<uniform> step: Step;

// The number of this invocation in a grid that the host folded into two dimensions.
fn linear_index(id: vec3<u32>, groups: vec3<u32>, size: u32) -> u32 {
    return id.x + id.y * groups.x * size;
}
