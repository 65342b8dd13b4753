//! Each kernel against the CPU's exact one on the same data.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // helpers fail by panicking; errors found are shown
#![allow(clippy::single_range_in_vec_init)] // a list of one range is meant

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../../../../tests/property.rs"]
mod property;
mod support;
mod translate;

mod attention;
mod delta;
mod elementwise;
mod errors;
mod experts;
mod linear;
mod norm;
mod route;
mod top_k;
mod weights;

use harness::test;

fn main() -> std::process::ExitCode {
    harness::run(vec![
        test!(attention::attention_is_that_of_the_cpu_in_any_chunks),
        test!(attention::latent_attention_is_that_of_the_cpu_in_any_chunks),
        test!(attention::windows_may_begin_behind_what_an_earlier_row_sees),
        test!(attention::any_rows_see_their_windows),
        test!(delta::decay_beta),
        test!(delta::convolution),
        test!(delta::gated_delta),
        test!(elementwise::each_value_by_itself),
        test!(elementwise::copies_are_exact),
        test!(elementwise::rope_turns_as_on_the_cpu),
        test!(errors::a_shader_that_does_not_compile_is_named),
        test!(errors::what_is_too_large_is_named),
        test!(errors::more_memory_than_allowed_is_none),
        test!(errors::a_device_that_is_not_there),
        test!(errors::a_lost_device_is_an_error_and_no_hang),
        test!(experts::experts_are_the_cpus_and_do_not_depend_on_the_number_of_tokens),
        test!(linear::linear_is_the_cpus_and_does_not_depend_on_the_number_of_rows),
        test!(linear::tiles_give_the_bits_of_a_row_by_itself),
        test!(linear::joined_matrices_are_one_and_each),
        test!(linear::rows_of_an_embedding_are_exact),
        test!(linear::each_head_has_its_matrix),
        test!(linear::a_stack_of_two_encodings_is_refused),
        test!(linear::a_product_of_a_swiglu_is_that_of_two_dispatches),
        test!(norm::norms_are_those_of_the_cpu),
        test!(norm::a_row_has_the_same_bits_alone_and_among_others),
        test!(norm::a_sum_and_its_norm_are_those_of_two_dispatches),
        test!(route::the_same_experts_as_the_cpu),
        test!(top_k::the_largest_by_falling_value_then_by_index),
        test!(without_gpu translate::a_wrong_shader_does_not_pass),
    ])
}
