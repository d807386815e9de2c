/* A fake libnvidia-ml.so.1: the sensor of a GPU whose load is scripted, so that its true energy is known exactly.

   The environment variable FAKE_NVML names a script, read at each nvmlInit: one `key value ...` a line (tests/fake_nvml.py
   writes it). Time is CLOCK_MONOTONIC less `epoch`, or, with `clock`, a double in a shared file that every call moves
   on by its own duration: then minutes of measurement take a second. Name, driver and UUIDs say FAKE unless the script
   gives others, which only tests without a run of a stand-in need. */

#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { ZERO = -1, OK = 0, INVALID = 2, NOT_SUPPORTED = 3, TOO_SMALL = 7, UNKNOWN = 999 };
enum { MOST_POINTS = 65536, MOST_FAULTS = 16, MOST_PIDS = 16 };

struct fault { char call[32]; int code; long after_calls; double after_s; long times; long calls; };

static struct {
  double epoch, update, span, phase, noise, gain, tick, lag, average, latency, freeze, reset, throttle_s, others_s, used;
  int blind, spin, mig, virtualisation, others, cards, temperature, points, faults, pids;
  int cuda, uuids, limit, usual_limit, persistence, ecc, capability;
  char name[64], driver[32];
  struct { unsigned id; double from_s; } pid[MOST_PIDS];
  unsigned long long throttle;
  double at[MOST_POINTS], watts[MOST_POINTS], joules[MOST_POINTS];
  struct fault fault[MOST_FAULTS];
} s;
static volatile double *virtual_now;
static double *seen;      /* joules that a part-time counter has added up after k updates */
static long seen_count, seen_room;

/* -- time ---------------------------------------------------------------------------------------------------------- */

static double now(void) {
  struct timespec t;
  if (virtual_now) return *virtual_now;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec - s.epoch;
}

static void spend(double seconds) {
  struct timespec t = {(time_t)seconds, (long)(1e9 * fmod(seconds, 1.0))};
  double stop = now() + seconds;
  if (virtual_now) *virtual_now += seconds;
  else if (s.spin) while (now() < stop);
  else if (seconds > 0) nanosleep(&t, NULL);
}

/* -- the load: straight lines through the points, over and over ------------------------------------------------------ */

static double energy(double t) {
  double length = s.at[s.points - 1], rounds = floor(t / length), in = t - rounds * length;
  int low = 0, high = s.points - 1;
  if (length <= 0) return s.watts[0] * t;
  while (high - low > 1) { int mid = (low + high) / 2; if (s.at[mid] <= in) low = mid; else high = mid; }
  double part = in - s.at[low], width = s.at[high] - s.at[low];
  double slope = width > 0 ? (s.watts[high] - s.watts[low]) / width : 0;
  return rounds * s.joules[s.points - 1] + s.joules[low] + part * (s.watts[low] + slope * part / 2);
}

/* -- the sensor ------------------------------------------------------------------------------------------------------ */

static double gauss(long k) { /* the same noise for the same update, however often it is read */
  uint64_t x = (uint64_t)k * 0x9E3779B97F4A7C15ull + 0x1234567;
  double u[2];
  for (int i = 0; i < 2; i++) {
    x ^= x >> 30; x *= 0xBF58476D1CE4E5B9ull; x ^= x >> 27; x *= 0x94D049BB133111EBull; x ^= x >> 31;
    u[i] = ((x >> 11) + 0.5) / 9007199254740992.0;
  }
  return sqrt(-2 * log(u[0])) * cos(6.283185307179586 * u[1]);
}

static double reading(long k, double span) {
  double t = k * s.update + s.phase;
  return fmax(0, s.gain * (energy(t) - energy(t - span)) / span + s.noise * gauss(k));
}

static long update_at(double t) { return (long)floor((t - s.phase) / s.update); }

static double counter_at(double t) {
  if (t > s.freeze) t = s.freeze;
  double base = t > s.reset ? s.reset : 0;
  t = floor(t / s.tick) * s.tick - s.lag;
  if (!s.blind) return s.gain * (energy(t) - (base ? energy(base) : 0)) + (base ? 0 : 1e5);
  long k = update_at(t);
  if (k < 0) return 1e5;
  if (k >= seen_room) seen = realloc(seen, sizeof *seen * (seen_room = 2 * k + 1024));
  for (; seen_count <= k; seen_count++)
    seen[seen_count] = (seen_count ? seen[seen_count - 1] : 0) + s.update * reading(seen_count, s.span);
  return 1e5 + seen[k];
}

/* -- the script ------------------------------------------------------------------------------------------------------ */

static void point(double t, double watts) {
  int i = s.points++;
  s.at[i] = t; s.watts[i] = watts;
  s.joules[i] = i ? s.joules[i - 1] + (t - s.at[i - 1]) * (watts + s.watts[i - 1]) / 2 : 0;
}

static void map_clock(const char *path) {
  int file = open(path, O_RDWR);
  void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (page != MAP_FAILED) virtual_now = page;
}

static int read_script(void) {
  const char *path = getenv("FAKE_NVML");
  FILE *file = path ? fopen(path, "r") : NULL;
  char key[32], text[512];
  double a, b;
  struct { const char *key; double *to; } number[] = {
    {"epoch", &s.epoch}, {"update", &s.update}, {"span", &s.span}, {"phase", &s.phase}, {"noise", &s.noise},
    {"gain", &s.gain}, {"tick", &s.tick}, {"lag", &s.lag}, {"average", &s.average}, {"latency", &s.latency},
    {"freeze", &s.freeze}, {"reset", &s.reset}, {"used", &s.used}};
  struct { const char *key; int *to; } whole[] = {
    {"blind", &s.blind}, {"spin", &s.spin}, {"mig", &s.mig}, {"virtualisation", &s.virtualisation},
    {"cards", &s.cards}, {"temperature", &s.temperature}, {"cuda", &s.cuda}, {"uuids", &s.uuids}, {"limit", &s.limit},
    {"usual_limit", &s.usual_limit}, {"persistence", &s.persistence}, {"ecc", &s.ecc}, {"capability", &s.capability}};
  memset(&s, 0, sizeof s);
  virtual_now = NULL; seen_count = 0;
  s.update = s.span = s.tick = 0.1; s.gain = s.average = s.spin = s.cards = s.persistence = 1; s.temperature = 40;
  s.limit = s.usual_limit = 400; s.cuda = 13000; s.capability = 75; s.used = 0.5;
  strcpy(s.driver, "FAKE 1.0");
  s.freeze = s.reset = s.throttle_s = s.others_s = INFINITY;
  if (!file) return UNKNOWN;
  while (fscanf(file, "%31s", key) == 1) {
    if (!strcmp(key, "point") && fscanf(file, "%lf %lf", &a, &b) == 2 && s.points < MOST_POINTS) point(a, b);
    else if (!strcmp(key, "clock") && fscanf(file, "%511s", text) == 1) map_clock(text);
    else if (!strcmp(key, "throttle") && fscanf(file, "%llx %lf", &s.throttle, &s.throttle_s) == 2) continue;
    else if (!strcmp(key, "others") && fscanf(file, "%d %lf", &s.others, &s.others_s) == 2) continue;
    else if (!strcmp(key, "name") && fscanf(file, " %63[^\n]", s.name) == 1) continue;
    else if (!strcmp(key, "driver") && fscanf(file, " %31[^\n]", s.driver) == 1) continue;
    else if (!strcmp(key, "pid") && fscanf(file, "%lf %lf", &a, &b) == 2 && s.pids < MOST_PIDS) {
      s.pid[s.pids].id = (unsigned)a; s.pid[s.pids++].from_s = b;
    } else if (!strcmp(key, "fault") && s.faults < MOST_FAULTS) {
      struct fault *f = &s.fault[s.faults++];
      int got = fscanf(file, "%31s %d %ld %lf %ld", f->call, &f->code, &f->after_calls, &f->after_s, &f->times);
      if (got != 5) return UNKNOWN;
    } else if (fscanf(file, "%lf", &a) == 1) {
      for (size_t i = 0; i < sizeof number / sizeof *number; i++) if (!strcmp(key, number[i].key)) *number[i].to = a;
      for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) if (!strcmp(key, whole[i].key)) *whole[i].to = (int)a;
    }
  }
  fclose(file);
  return s.points ? OK : UNKNOWN;
}

typedef void *device;

/* The code that a scripted fault gives this call; each fault counts for itself. A fault names a call or `all`, and may
   name one card by NVML's number: `all@1`. Its code ZERO is a success whose value is 0. */
static int faulty(const char *call, device d) {
  char here[2][32];
  snprintf(here[0], 32, "%s@%d", call, (int)(intptr_t)d - 1);
  snprintf(here[1], 32, "all@%d", (int)(intptr_t)d - 1);
  for (int i = 0; i < s.faults; i++) {
    struct fault *f = &s.fault[i];
    const char *names[] = {call, "all", here[0], here[1]};
    int hit = 0;
    for (int n = 0; n < (d ? 4 : 2); n++) hit |= !strcmp(f->call, names[n]);
    if (!hit || now() < f->after_s) continue;
    long over = ++f->calls - f->after_calls;
    if (over > 0 && over <= f->times) return f->code;
  }
  return OK;
}

static int begin(const char *call, device d) {
  spend(s.latency);
  return faulty(call, d);
}

static int result(int bad) { return bad == ZERO ? OK : bad; }

/* -- the calls of NVML ----------------------------------------------------------------------------------------------- */

struct value {
  uint32_t field, scope;
  int64_t timestamp, latency;
  uint32_t type, result;
  union { uint32_t ui; uint64_t ull; } value;
};
struct process { uint32_t pid; uint64_t memory; uint32_t instance, compute; };
struct memory { unsigned long long total, free, used; };
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };
struct pci { char legacy[16]; uint32_t domain, bus, device, id, subsystem; char bus_id[32]; };

int nvmlInitWithFlags(unsigned flags) { (void)flags; int bad = read_script(); return bad ? bad : faulty("init", NULL); }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) {
  static char text[32];
  snprintf(text, sizeof text, "fake error %d", code);
  return text;
}
int nvmlSystemGetDriverVersion(char *to, unsigned n) { snprintf(to, n, "%s", s.driver); return faulty("driver", NULL); }
int nvmlSystemGetCudaDriverVersion_v2(int *to) { *to = s.cuda; return faulty("cuda", NULL); }
int nvmlDeviceGetCount_v2(unsigned *to) { *to = s.cards; return faulty("count", NULL); }

/* NVML's own order is not that of the PCI bus here: card i sits on bus `cards - i`. */
int nvmlDeviceGetHandleByIndex_v2(unsigned i, device *to) {
  *to = (device)(intptr_t)(i + 1);
  return i < (unsigned)s.cards ? faulty("handle", *to) : INVALID;
}
int nvmlDeviceGetUUID(device d, char *to, unsigned n) {
  int i = (int)(intptr_t)d - 1;
  snprintf(to, n, s.uuids ? "GPU-%08x-9d1c-4b6a-8f20-3c5e7a9b1d42" : "GPU-FAKE-%d", s.uuids ? 0x5ca1ab1e + i : i);
  return faulty("uuid", d);
}
int nvmlDeviceGetName(device d, char *to, unsigned n) {
  if (*s.name) snprintf(to, n, "%s", s.name);
  else snprintf(to, n, "FAKE GPU%s", (intptr_t)d == 1 ? "" : " 2");
  return faulty("name", d);
}
int nvmlDeviceGetPciInfo_v3(device d, struct pci *to) {
  memset(to, 0, sizeof *to);
  to->bus = s.cards - (int)(intptr_t)d + 1;
  snprintf(to->bus_id, sizeof to->bus_id, "00000000:%02X:00.0", to->bus);
  return faulty("pci", d);
}
int nvmlDeviceGetMigMode(device d, unsigned *current, unsigned *pending) {
  *current = *pending = s.mig;
  return faulty("mig", d);
}
int nvmlDeviceGetVirtualizationMode(device d, unsigned long long *to) {
  *to = s.virtualisation;
  return faulty("virtualisation", d);
}

int nvmlDeviceGetPowerUsage(device d, unsigned *to) {
  int bad = begin("power", d);
  *to = bad ? 0 : (unsigned)lround(1e3 * reading(update_at(now()), s.average));
  return result(bad);
}
int nvmlDeviceGetTotalEnergyConsumption(device d, unsigned long long *to) {
  int bad = begin("counter", d);
  *to = bad ? 0 : (unsigned long long)(1e3 * counter_at(now()));
  return result(bad);
}
int nvmlDeviceGetFieldValues(device d, int n, struct value *v) {
  int bad = begin("fields", d);
  for (int i = 0; i < n; i++) {
    int counter = v[i].field == 83, known = counter || v[i].field == 186;
    int wrong = known ? faulty(counter ? "counter_field" : "instant", d) : NOT_SUPPORTED;
    v[i].result = result(wrong);
    if (counter) v[i].value.ull = wrong ? 0 : (uint64_t)(1e3 * counter_at(now()));
    else v[i].value.ui = wrong ? 0 : (uint32_t)lround(1e3 * reading(update_at(now()), s.span));
  }
  return result(bad);
}
/* Of 16 GiB half a GiB is the driver's own: `used` counts it in the first version alone. */
int nvmlDeviceGetMemoryInfo(device d, struct memory *to) {
  unsigned long long used = (unsigned long long)((s.used + 0.5) * (1ULL << 30));
  to->total = 16ULL << 30, to->used = used, to->free = to->total - used;
  return faulty("memory", d);
}
int nvmlDeviceGetMemoryInfo_v2(device d, struct memory_v2 *to) {
  unsigned long long used = (unsigned long long)(s.used * (1ULL << 30));
  to->total = 16ULL << 30, to->reserved = 1ULL << 29, to->used = used, to->free = to->total - to->reserved - used;
  return faulty("memory_v2", d);
}
int nvmlDeviceGetTemperature(device d, int sensor, unsigned *to) {
  (void)sensor;
  *to = s.temperature;
  return faulty("temperature", d);
}
int nvmlDeviceGetClockInfo(device d, int kind, unsigned *to) {
  *to = kind == 1 ? 1500 : 7000;
  return faulty("clock", d);
}
int nvmlDeviceGetEnforcedPowerLimit(device d, unsigned *to) {
  int bad = faulty("limit", d);
  *to = bad ? 0 : 1000 * s.limit;
  return result(bad);
}
int nvmlDeviceGetCurrentClocksEventReasons(device d, unsigned long long *to) {
  *to = now() >= s.throttle_s ? s.throttle : 0;
  return faulty("throttle", d);
}
int nvmlDeviceGetPowerManagementDefaultLimit(device d, unsigned *to) {
  *to = 1000 * s.usual_limit;
  return faulty("usual_limit", d);
}
int nvmlDeviceGetPersistenceMode(device d, unsigned *to) {
  *to = s.persistence;
  return faulty("persistence", d);
}
int nvmlDeviceGetEccMode(device d, unsigned *current, unsigned *pending) {
  *current = *pending = s.ecc;
  return faulty("ecc", d);
}
int nvmlDeviceGetCudaComputeCapability(device d, int *major, int *minor) {
  *major = s.capability / 10, *minor = s.capability % 10;
  return faulty("capability", d);
}
int nvmlDeviceGetMaxPcieLinkGeneration(device d, unsigned *to) { *to = 3; return faulty("pcie", d); }
int nvmlDeviceGetCurrPcieLinkWidth(device d, unsigned *to) { *to = 16; return faulty("pcie", d); }

/* The scripted strangers and the process ids of the script, each from its second on. */
int nvmlDeviceGetComputeRunningProcesses_v3(device d, unsigned *n, struct process *to) {
  int bad = faulty("processes", d), strangers = now() >= s.others_s ? s.others : 0, count = 0, room = (int)*n;
  unsigned ids[MOST_PIDS + 64];
  for (; count < strangers && count < 64; count++) ids[count] = 4000000 + count;
  for (int i = 0; i < s.pids; i++) if (now() >= s.pid[i].from_s) ids[count++] = s.pid[i].id;
  *n = count;
  if (bad || !count) return bad;
  if (!to || room < count) return TOO_SMALL;
  for (int i = 0; i < count; i++) to[i] = (struct process){.pid = ids[i], .memory = 1 << 20};
  return OK;
}
