// A grid level of two float32 features, the usual one: two neighbours along the first axis are one
// 16-byte register, {entry f0, entry f1, next f0, next f1}, so that one multiply-add serves two
// corners. Where entries count up along that axis they lie side by side and are one load, else two.
// Neighbours never share an entry: their indices differ in the last bit. Included by
// kernels_inputs.h.

template <class T, int F>
constexpr bool kPaired = sizeof(T) == 4 && F == 2;

typedef float Quad __attribute__((vector_size(16)));
typedef float QuadInMemory __attribute__((vector_size(16), aligned(4), may_alias));
typedef double Twin __attribute__((vector_size(16)));  // two pairs of float32, moved whole
typedef double Moved __attribute__((may_alias, aligned(4)));

// {a0, b0, a1, b1} in every 16 bytes, and {a2, b2, a3, b3}.
template <int... I>
INLINE V<float> unpack_low(V<float> a, V<float> b, Sequence<I...>) {
  constexpr int n = kLanes<float>;
  return __builtin_shufflevector(a, b, ((I & 1) * n + I / 4 * 4 + I % 4 / 2)...);
}
template <int... I>
INLINE V<float> unpack_high(V<float> a, V<float> b, Sequence<I...>) {
  constexpr int n = kLanes<float>;
  return __builtin_shufflevector(a, b, ((I & 1) * n + I / 4 * 4 + I % 4 / 2 + 2)...);
}

// As Corners, with the weights of two neighbours as the four factors of their features.
template <int D>
struct Pairs {
  static constexpr int C = 1 << D, L = kLanes<float>;
  static constexpr bool kUnrolled = true;   // every address is then a constant's distance away
  alignas(64) uint32_t entry[C * L];        // [corner][lane]
  alignas(64) float factor[C / 2 * 4 * L];  // [pair][lane % 4][lane / 4][4]
  INLINE void put_pair(Pairs& to, int c, const U<float>* entry, const V<float>* weight) {
    using Lane = typename MakeSequence<L>::type;
    *reinterpret_cast<U<float>*>(to.entry + c * L) = entry[0];
    *reinterpret_cast<U<float>*>(to.entry + (c + 1) * L) = entry[1];
    const V<float> low = unpack_low(weight[0], weight[1], Lane{});
    const V<float> high = unpack_high(weight[0], weight[1], Lane{});
    float* factor = to.factor + c / 2 * 4 * L;
    store(factor, unpack_low(low, low, Lane{}));
    store(factor + L, unpack_high(low, low, Lane{}));
    store(factor + 2 * L, unpack_low(high, high, Lane{}));
    store(factor + 3 * L, unpack_high(high, high, Lane{}));
  }
  INLINE Quad factors(const Pairs& from, int pair, int lane) {
    return *reinterpret_cast<const Quad*>(from.factor + (pair * 4 + lane % 4) * L + lane / 4 * 4);
  }
};

template <bool Adjacent>
INLINE Quad load_pair(const float* table, const uint32_t* entry, int L) {
  const float* from = table + static_cast<size_t>(entry[0]) * 2;
  if constexpr (Adjacent) return *reinterpret_cast<const QuadInMemory*>(from);
  const float* next = table + static_cast<size_t>(entry[L]) * 2;
  return reinterpret_cast<Quad>(
      Twin{*reinterpret_cast<const Moved*>(from), *reinterpret_cast<const Moved*>(next)});
}
template <bool Adjacent>
INLINE void store_pair(float* table, const uint32_t* entry, int L, Quad x) {
  float* to = table + static_cast<size_t>(entry[0]) * 2;
  if constexpr (Adjacent) {
    *reinterpret_cast<QuadInMemory*>(to) = x;
  } else {
    const Twin both = reinterpret_cast<Twin>(x);
    *reinterpret_cast<Moved*>(to) = both[0];
    *reinterpret_cast<Moved*>(table + static_cast<size_t>(entry[L]) * 2) = both[1];
  }
}

template <int D, class Body>
INLINE void each_pair(const GridArgs<float>& a, int derivative, const float* table, Body body) {
  each_row<Pairs<D>, float, D, 2>(a, derivative, table, body);
}

template <int D, bool Adjacent>
INLINE void forward_pairs(const GridArgs<float>& a, int derivative, const float* table,
                          float* column, ptrdiff_t stride) {
  constexpr int L = kLanes<float>;
  each_pair<D>(a, derivative, table, [&](int row, int lane, const Pairs<D>& pairs) INLINE_LAMBDA {
    Quad sum = {};
#pragma GCC unroll 4
    for (int p = 0; p < pairs.C / 2; ++p)
      sum += Pairs<D>::factors(pairs, p, lane) *
             load_pair<Adjacent>(table, pairs.entry + 2 * p * L + lane, L);
    sum += __builtin_shufflevector(sum, sum, 2, 3, 2, 3);
    *reinterpret_cast<Moved*>(column + row * stride) = reinterpret_cast<Twin>(sum)[0];
  });
}
template <int D>
INLINE void pairs_forward(const GridArgs<float>& a, int derivative, const float* table,
                          float* column, ptrdiff_t stride) {
  if (!a.hashed && a.mask == ~0u)
    forward_pairs<D, true>(a, derivative, table, column, stride);
  else
    forward_pairs<D, false>(a, derivative, table, column, stride);
}

template <int D, bool Adjacent, class Mark>
INLINE void scatter_pairs(const GridArgs<float>& a, int derivative, const float* g,
                          ptrdiff_t stride, float* gradient, Mark mark) {
  constexpr int L = kLanes<float>;
  each_pair<D>(
      a, derivative, gradient, [&](int row, int lane, const Pairs<D>& pairs) INLINE_LAMBDA {
        const double both = *reinterpret_cast<const Moved*>(g + row * stride);
        const Quad mine = reinterpret_cast<Quad>(Twin{both, both});
#pragma GCC unroll 4
        for (int p = 0; p < pairs.C / 2; ++p) {
          const uint32_t* entry = pairs.entry + 2 * p * L + lane;
          store_pair<Adjacent>(
              gradient, entry, L,
              load_pair<Adjacent>(gradient, entry, L) + Pairs<D>::factors(pairs, p, lane) * mine);
          mark(entry[0]);
          mark(entry[L]);
        }
      });
}
template <int D>
INLINE void pairs_scatter(const GridArgs<float>& a, int derivative, const float* g,
                          ptrdiff_t stride, float* gradient, uint8_t* touched) {
  auto scatter = [&](auto mark) INLINE_LAMBDA {
    if (!a.hashed && a.mask == ~0u)
      scatter_pairs<D, true>(a, derivative, g, stride, gradient, mark);
    else
      scatter_pairs<D, false>(a, derivative, g, stride, gradient, mark);
  };
  if (touched)
    scatter([&](size_t entry) INLINE_LAMBDA { touched[entry / kTableGroup] = 1; });
  else
    scatter([](size_t) INLINE_LAMBDA {});
}
