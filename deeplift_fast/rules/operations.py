"""The kind of rule of each operation, by the name that PyTorch's functions, methods and in-place forms share."""

# Linear in their floating-point tensors together: the ordinary gradient is exact if masks, indices and numbers are the
# same in both streams.
LINEAR = frozenset(
    """
    add sub subtract radd rsub neg negative pos positive sum mean nansum nanmean cumsum diff trace
    view view_as reshape reshape_as flatten unflatten ravel squeeze unsqueeze transpose t swapaxes swapdims permute
    movedim moveaxis adjoint expand expand_as broadcast_to broadcast_tensors repeat repeat_interleave tile
    contiguous clone to type type_as float double half bfloat16 cpu cuda alias narrow narrow_copy select slice split
    split_with_sizes tensor_split chunk unsafe_chunk unsafe_split unbind unfold fold hsplit vsplit dsplit
    cat concat concatenate stack hstack vstack dstack row_stack column_stack block_diag
    getitem setitem gather take take_along_dim index_select index_fill index_add index_copy index_put scatter
    scatter_add put select_scatter slice_scatter diagonal_scatter masked_fill masked_select masked_scatter
    diag diagonal diag_embed diagflat tril triu flip fliplr flipud roll rot90 pad constant_pad_nd
    zero fill copy where dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    max_unpool1d max_unpool2d max_unpool3d interpolate upsample upsample_nearest upsample_bilinear
    pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle real imag conj conj_physical resolve_conj
    resolve_neg view_as_real view_as_complex atleast_1d atleast_2d atleast_3d meshgrid cartesian_prod
    identity align_as refine_names rename as_strided as_strided_copy sum_to_size embedding embedding_bag nll_loss
    pad_packed_sequence pack_padded_sequence pack_padded_sequence_batch_first nested_to_padded_tensor
    fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn
    fft_hfft fft_ihfft fft_fftshift fft_ifftshift stft istft deg2rad rad2deg
    """.split()
)

# Operations without a rule, since their results carry no gradient.
PLAIN = frozenset(
    """
    get set del size dim ndimension numel nelement stride storage_offset is_contiguous is_floating_point is_complex
    item tolist len bool int float index hash format repr str contains iter element_size data_ptr
    storage untyped_storage get_device is_same_size is_set_to is_shared is_inference is_nonzero is_pinned is_tensor
    is_conj is_neg is_same dim_order dlpack_device reduce reduce_ex deepcopy bytes has_names names
    eq ne lt le gt ge equal not_equal less less_equal greater greater_equal isnan isinf isfinite isneginf isposinf
    isreal isclose allclose isin signbit
    logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not and or xor invert
    rand ror rxor any all argmax argmin argsort nonzero count_nonzero searchsorted bucketize unique
    unique_consecutive bincount histc histogram
    zeros ones full empty eye arange range linspace logspace tensor as_tensor from_numpy scalar_tensor tril_indices
    triu_indices hann_window hamming_window
    zeros_like ones_like empty_like full_like rand_like randn_like randint_like new_zeros new_ones new_empty new_full
    new new_tensor new_empty_strided empty_strided uniform random exponential log_normal geometric
    cauchy randn randint randperm
    kaiming_uniform kaiming_normal xavier_uniform xavier_normal constant trunc_normal orthogonal
    one_hot long short char byte integer manual_seed register_hook retain_grad backward grad result_type can_cast
    promote_types finfo iinfo broadcast_shapes is_grad_enabled set_grad_enabled typename shape requires_grad
    nested_tensor_from_mask_left_aligned assert_async assert use_deterministic_algorithms
    are_deterministic_algorithms_enabled get_default_dtype lengths_to_offsets resize set_data pin_memory share_memory
    """.split()
)

# One real argument, element by element.
ELEMENTWISE = frozenset(
    """
    relu6 leaky_relu prelu elu selu celu gelu silu mish softplus softsign hardtanh hardsigmoid hardswish logsigmoid
    log_sigmoid threshold hardshrink softshrink tanhshrink rrelu exp exp2 expm1 log log2 log10 log1p sqrt rsqrt
    reciprocal square pow rpow float_power abs absolute sin cos tan asin acos atan arcsin arccos arctan sinh cosh asinh
    acosh atanh arcsinh arccosh arctanh erf erfc erfinv clamp clip clamp_min clamp_max ceil floor round trunc fix frac
    sign sgn special_erf special_erfc special_erfcx special_erfinv special_expm1 special_exp2 special_log1p
    special_log_ndtr special_ndtr special_ndtri special_entr special_i0 special_i0e special_i1 special_i1e special_sinc
    sinc i0 lgamma digamma special_gammaln special_digamma special_psi mvlgamma polygamma logit special_logit nan_to_num
    mod remainder fmod floordiv floor_divide div_rounded copysign heaviside special_xlogy xlogy special_xlog1py
    """.split()
)

# Linear in each of two tensors.
BILINEAR = frozenset(
    """
    mul multiply rmul matmul rmatmul mm bmm mv dot vdot inner outer ger linear bilinear conv1d conv2d conv3d convolution
    conv_transpose1d conv_transpose2d conv_transpose3d conv_tbc baddbmm addmm addmv addbmm addr addcmul tensordot kron
    cross linalg_cross vecdot linalg_vecdot einsum
    """.split()
)

# Operations that jump or choose. No secant is complete: they keep the gradient at the input, and the report names them.
GRADIENT = frozenset(
    """
    sort topk kthvalue median nanmedian mode msort quantile nanquantile
    fractional_max_pool2d fractional_max_pool3d fractional_max_pool2d_with_indices fractional_max_pool3d_with_indices
    """.split()
)

# Values leave the graph here, but not the model's arithmetic.
DETACHING = frozenset(("detach", "detach_copy"))

# Values leave PyTorch here.
LEAVING = frozenset(("numpy", "array", "dlpack"))

# Random results that depend on the operation's tensors: both streams take the same draws.
DRAWS = frozenset(("multinomial", "bernoulli", "poisson", "binomial", "normal", "standard_gamma", "sample_dirichlet"))

# Nodes of autograd whose result is still an inverse: they move its elements, cast them, or set some to a constant.
HANDING_ON = frozenset(
    f"{name}Backward{number}"
    for number in range(4)
    for name in """
    View UnsafeView ReshapeAlias Expand Unsqueeze Squeeze Transpose T Permute ToCopy Clone Alias AsStrided Select Slice
    Index IndexSelect Gather Repeat Split SplitWithSizes Unbind Flip Roll Diagonal DiagEmbed MaskedFill Neg
    """.split()
)

# The position of `inplace` among the arguments of the functional form.
IN_PLACE_POSITION = {
    "relu": 1,
    "relu6": 1,
    "silu": 1,
    "mish": 1,
    "selu": 1,
    "hardswish": 1,
    "hardsigmoid": 1,
    "leaky_relu": 2,
    "elu": 2,
    "celu": 2,
    "hardtanh": 3,
    "threshold": 3,
    "rrelu": 4,
}
