/* The rule by which a thread yields the loop: see yield_rule.h. */
#include "yield_rule.h"

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Moves towards the sample by its weight, and can reach 0. */
static int64_t mean(int64_t before, int64_t sample)
{
    int64_t change = (sample - before) / PW_YIELD_WEIGHT;
    return change == 0 && sample < before ? before - 1 : before + change;
}

pw_yield_measure pw_yield_begin(pw_yield_rule *rule)
{
    bool looks = rule->looks > 0;
    rule->looks -= looks;
    if (looks && !pw_yield_pays(rule))
        return PW_YIELD_USAGE;
    /* While it pays there are more samples than the rule needs. */
    if (++rule->taken % (pw_yield_pays(rule) ? PW_YIELD_SPARSE : PW_YIELD_TIMED) != 0)
        return PW_YIELD_NOTHING;
    return looks ? PW_YIELD_USAGE : PW_YIELD_TIME;
}

/* Whether the last sample that could be trusted is too old. */
static bool is_in_doubt(const pw_yield_rule *rule, const pw_yield_sample *sample)
{
    int64_t alone = rule->cpu_mean + rule->off_mean; /* time of one request that runs alone */
    int64_t long_ago = most(PW_YIELD_DOUBT_NS, alone * PW_YIELD_DOUBT_REQUESTS);
    return sample->now - rule->sure_at > long_ago ||
           sample->now - rule->clean_at > long_ago * PW_YIELD_DOUBT_CLEAN;
}

void pw_yield_learn(pw_yield_rule *rule, const pw_yield_sample *sample)
{
    if (sample->wall < PW_YIELD_SHORT_NS) {
        rule->off_mean = mean(rule->off_mean, 0);
        rule->cpu_mean = mean(rule->cpu_mean, sample->wall);
        return;
    }
    rule->looks = PW_YIELD_LOOKS;
    if (sample->cpu < 0)
        return;
    int64_t cpu = least(sample->cpu, sample->wall);
    rule->cpu_mean = mean(rule->cpu_mean, cpu);
    int64_t off = sample->waited ? sample->wall - cpu : 0;
    if (sample->company > 0) {
        if (rule->off_mean > 0 && is_in_doubt(rule, sample)) {
            rule->off_mean = 0;
            rule->sure_at = rule->clean_at = sample->now;
            return;
        }
        off -= sample->others + sample->others / PW_YIELD_MARGIN;
        if (off <= 0 || rule->off_mean == 0)
            return; /* it may all have been waiting for the GIL */
    } else {
        rule->clean_at = sample->now;
    }
    rule->sure_at = sample->now;
    off = least(off, pw_yield_pays(rule) ? PW_YIELD_MOST_NS : PW_YIELD_FIRST_NS);
    rule->off_mean = mean(rule->off_mean, off);
}

void pw_yield_learn_stall(pw_yield_rule *rule, int64_t now)
{
    rule->off_mean = most(rule->off_mean, PW_YIELD_STALL_NS);
    rule->looks = PW_YIELD_LOOKS;
    rule->sure_at = rule->clean_at = now;
}
