// The register tile that an invocation of every product owns: 8 rows × 8 columns, two vec4 of columns for each row.
// A named array, indexed by constants only, stays in registers.

alias Tile = array<vec4<f32>, 16>;

// t[i, j] += a[i] b[j]
fn multiply_add(t: ptr<function, Tile>, a0: vec4<f32>, a1: vec4<f32>, b0: vec4<f32>, b1: vec4<f32>) {
    (*t)[0] += a0.x * b0; (*t)[1] += a0.x * b1;
    (*t)[2] += a0.y * b0; (*t)[3] += a0.y * b1;
    (*t)[4] += a0.z * b0; (*t)[5] += a0.z * b1;
    (*t)[6] += a0.w * b0; (*t)[7] += a0.w * b1;
    (*t)[8] += a1.x * b0; (*t)[9] += a1.x * b1;
    (*t)[10] += a1.y * b0; (*t)[11] += a1.y * b1;
    (*t)[12] += a1.z * b0; (*t)[13] += a1.z * b1;
    (*t)[14] += a1.w * b0; (*t)[15] += a1.w * b1;
}

fn add_tile(t: ptr<function, Tile>, u: Tile) {
    (*t)[0] += u[0]; (*t)[1] += u[1]; (*t)[2] += u[2]; (*t)[3] += u[3];
    (*t)[4] += u[4]; (*t)[5] += u[5]; (*t)[6] += u[6]; (*t)[7] += u[7];
    (*t)[8] += u[8]; (*t)[9] += u[9]; (*t)[10] += u[10]; (*t)[11] += u[11];
    (*t)[12] += u[12]; (*t)[13] += u[13]; (*t)[14] += u[14]; (*t)[15] += u[15];
}
