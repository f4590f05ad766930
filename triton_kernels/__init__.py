"""The operators in Triton; installed as `recsparse.triton_kernels`, one file per operator."""
