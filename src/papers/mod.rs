//! Reproductions: one folder per paper, each with its runs, its measures and its figures.

pub mod superlinear;
