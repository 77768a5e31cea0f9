/* Random draws in the browser: the streams of understanding_lrs.core.seeds, number for number.

   NumPy documents its streams: a SeedSequence hashes the keys into the state of a PCG64 (XSL-RR, 128 bits), and a
   generator turns its output into numbers. This file does the same. It is compiled together with the C source of the
   training step (understanding_lrs.training.native), whose `forward` the last function uses. */

typedef unsigned __int128 u128;

static struct { u128 state, increment; uint32_t half; int has_half; } pcg;

static uint64_t next64(void) {
  const u128 factor = ((u128)2549297995355413924ULL << 64) | 4865540595714422341ULL;
  pcg.state = pcg.state*factor + pcg.increment;
  uint64_t mixed = (uint64_t)(pcg.state >> 64) ^ (uint64_t)pcg.state;
  unsigned turn = (unsigned)(pcg.state >> 122);
  return (mixed >> turn) | (mixed << (-turn & 63));
}

/* half of a 64-bit output; the upper half is kept for the next call */
static uint32_t next32(void) {
  if (pcg.has_half) { pcg.has_half = 0; return pcg.half; }
  uint64_t both = next64();
  pcg.has_half = 1;
  pcg.half = (uint32_t)(both >> 32);
  return (uint32_t)both;
}

static double next_double(void) { return (double)(next64() >> 11)*(1./9007199254740992.); }  /* in [0, 1) */

/* an integer in [0, most], without bias (Lemire) */
static uint32_t bounded(uint32_t most) {
  if (!most) return 0;
  uint32_t count = most + 1;
  uint64_t product = (uint64_t)next32()*count;
  if ((uint32_t)product < count) {
    uint32_t threshold = (uint32_t)(-count) % count;
    while ((uint32_t)product < threshold) product = (uint64_t)next32()*count;
  }
  return (uint32_t)(product >> 32);
}

/* the hash of a seed sequence: `constant` moves on with every call */
static uint32_t hashed(uint32_t value, uint32_t *constant, uint32_t factor) {
  value ^= *constant;
  *constant *= factor;
  value *= *constant;
  return value ^ (value >> 16);
}
static uint32_t mixed(uint32_t x, uint32_t y) {
  uint32_t both = 0xca01f9ddu*x - 0x4973f715u*y;
  return both ^ (both >> 16);
}

/* Begin the stream of some keys, each below 2^32. */
void play_stream(const uint32_t *keys, int n) {
  uint32_t pool[4], constant = 0x43b0d7e5u, words[8];
  for (int i = 0; i < 4; i++) pool[i] = hashed(i < n ? keys[i] : 0, &constant, 0x931e8875u);
  for (int from = 0; from < 4; from++)
    for (int to = 0; to < 4; to++)
      if (from != to) pool[to] = mixed(pool[to], hashed(pool[from], &constant, 0x931e8875u));
  for (int from = 4; from < n; from++)
    for (int to = 0; to < 4; to++) pool[to] = mixed(pool[to], hashed(keys[from], &constant, 0x931e8875u));
  constant = 0x8b51f9ddu;
  for (int i = 0; i < 8; i++) words[i] = hashed(pool[i % 4], &constant, 0x58f38dedu);
  uint64_t w[4];
  for (int i = 0; i < 4; i++) w[i] = (uint64_t)words[2*i + 1] << 32 | words[2*i];
  pcg.increment = (((u128)w[2] << 64) | w[3]) << 1 | 1;
  pcg.has_half = 0;
  pcg.state = 0;
  next64();
  pcg.state += ((u128)w[0] << 64) | w[1];
  next64();
}

void play_uniform(double *out, int n) { for (int i = 0; i < n; i++) out[i] = next_double(); }

void play_integers(int32_t *out, int n, uint32_t most) { for (int i = 0; i < n; i++) out[i] = (int32_t)bounded(most); }

/* an integer in [0, most], by rejection: what NumPy shuffles with */
static uint32_t interval(uint32_t most) {
  uint32_t mask = most, value;
  for (int k = 1; k < 32; k *= 2) mask |= mask >> k;
  do value = next32() & mask; while (value > most);
  return value;
}

void play_permutation(int32_t *out, int n) {
  for (int i = 0; i < n; i++) out[i] = i;
  for (int i = n - 1; i > 0; i--) {
    int j = (int)interval((uint32_t)i);
    int32_t kept = out[i];
    out[i] = out[j];
    out[j] = kept;
  }
}

/* The ziggurat of the normal density (Marsaglia and Tsang 2000), 256 layers of area AREA, the lowest one ends at EDGE.
   Layer 0 is the base with the tail, layers 1 to 255 rise from the widest. */
static const double EDGE = 3.6541528853610088, AREA = 0.00492867323399;
static double width_of[256], height_of[256];
static uint64_t inner_of[256];

static void ziggurat(void) {
  const double scale = 4503599627370496.;                 /* 2^52 */
  double edge[257];
  edge[256] = AREA/exp(-.5*EDGE*EDGE);                    /* of a rectangle with the area of base and tail */
  edge[255] = EDGE;
  for (int i = 254; i > 0; i--) edge[i] = sqrt(-2.*log(AREA/edge[i + 1] + exp(-.5*edge[i + 1]*edge[i + 1])));
  edge[0] = 0;
  width_of[0] = edge[256]/scale;
  inner_of[0] = (uint64_t)(EDGE/edge[256]*scale);
  height_of[0] = 1;
  for (int i = 1; i < 256; i++) {
    width_of[i] = edge[i]/scale;
    inner_of[i] = (uint64_t)(edge[i - 1]/edge[i]*scale);
    height_of[i] = exp(-.5*edge[i]*edge[i]);
  }
}

static double normal(void) {
  for (;;) {
    uint64_t bits = next64();
    int layer = bits & 255;
    int negative = bits >> 8 & 1;
    uint64_t size = bits >> 9 & 0x000fffffffffffffULL;
    double x = (double)size*width_of[layer];
    if (negative) x = -x;
    if (size < inner_of[layer]) return x;
    if (layer) {
      double height = (height_of[layer - 1] - height_of[layer])*next_double() + height_of[layer];
      if (height < exp(-.5*x*x)) return x;
      continue;
    }
    for (;;) {                                            /* the tail */
      double beyond = -log1p(-next_double())/EDGE, other = -log1p(-next_double());
      if (other + other > beyond*beyond) return (size >> 8 & 1) ? -(EDGE + beyond) : EDGE + beyond;
    }
  }
}

void play_normal(double *out, int n) {
  if (!width_of[1]) ziggurat();
  for (int i = 0; i < n; i++) out[i] = normal();
}

/* Logits of one network for n samples; 1 where there is no memory. */
int play_logits(const spec *s, const float *w, const float *readout, const float *x, int n, float *out) {
  work k;
  if (work_make(&k, s)) return 1;
  load(&k, s, w);
  for (int first = 0; first < n; first += BLOCK) {
    const float *xt[BLOCK];
    int m = n - first < BLOCK ? n - first : BLOCK;
    for (int b = 0; b < BLOCK; b++) xt[b] = x + (first + (b < m ? b : 0))*s->ldx;
    row logit = forward(&k, s, readout, xt);
    for (int b = 0; b < m; b++) out[first + b] = ((float *)&logit)[b];
  }
  free(k.memory);
  return 0;
}
