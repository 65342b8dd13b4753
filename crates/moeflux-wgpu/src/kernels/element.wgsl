// The element that an invocation of a workgroup works on, where each invocation has one: workgroups are in rows of GRID_ROW.
fn element(group: vec3<u32>, lane: u32) -> u32 {
    return (group.y * GRID_ROW + group.x) * LANES + lane;
}
