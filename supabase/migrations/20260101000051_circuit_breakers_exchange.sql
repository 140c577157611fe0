-- What: the exchange of reports and states between the isolates' breakers and the shared ones.
-- Why: one trip takes what an isolate counted and brings what all know; who reports at the same time is put in a row.
-- Who: the connection's own role. The API roles have no rights here.

create or replace function holdfast.require_circuit_breaker_reports(p_reports jsonb)
returns void
language plpgsql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text;
    v_wanted text;
    v_received text;
begin
    if jsonb_typeof(p_reports) is distinct from 'array' or jsonb_array_length(p_reports) > 1000 then
        raise exception 'Cannot exchange circuit breakers: the reports must be a JSON array of at most 1000, received %',
            coalesce(jsonb_typeof(p_reports), 'null')
            using errcode = 'HF020';
    end if;

    select r.report ->> 'name', rule.wanted, coalesce((r.report #> rule.field)::text, 'nothing')
    into v_name, v_wanted, v_received
    from jsonb_array_elements(p_reports) as r (report)
    cross join lateral (values
        (
            '{name}'::text[], 'name must have 1 to 200 characters',
            jsonb_typeof(r.report -> 'name') = 'string' and length(r.report ->> 'name') between 1 and 200
        ),
        (
            '{epoch}', 'epoch must be a whole number from 0 to 2^52',
            r.report @@ 'strict $.epoch % 1 == 0 && $.epoch >= 0 && $.epoch <= 4503599627370496'
        ),
        (
            '{successes}', 'successes must be a whole number from 0 to 10^9',
            r.report @@ 'strict $.successes % 1 == 0 && $.successes >= 0 && $.successes <= 1000000000'
        ),
        (
            '{failures}', 'failures must be a whole number from 0 to 10^9',
            r.report @@ 'strict $.failures % 1 == 0 && $.failures >= 0 && $.failures <= 1000000000'
        ),
        (
            '{trailingFailures}', 'trailingFailures must be a whole number from 0 to failures',
            r.report @@ 'strict $.trailingFailures % 1 == 0 && $.trailingFailures >= 0
                && $.trailingFailures <= $.failures'
        ),
        (
            '{wantsProbe}', 'wantsProbe must be true, false or left out',
            coalesce(jsonb_typeof(r.report -> 'wantsProbe') = 'boolean', true)
        ),
        (
            '{probe}', 'probe must have a token and an outcome, or be left out',
            coalesce(r.report -> 'probe', 'null') = 'null' or r.report @@ 'strict $.probe.token % 1 == 0
                && $.probe.token >= 0 && $.probe.token <= 9007199254740991
                && ($.probe.outcome == "succeeded" || $.probe.outcome == "failed" || $.probe.outcome == "abandoned")'
        ),
        (
            '{rules}', 'failureThreshold and consecutiveFailures must be null or at least 1, failureRate null or in (0, 1], '
                'minimumVolume and halfOpenProbes at least 1, the times above 0 and at most 2147483647 ms',
            r.report @@ 'strict ($.rules.failureThreshold == null || $.rules.failureThreshold >= 1)
                && ($.rules.consecutiveFailures == null || $.rules.consecutiveFailures >= 1)
                && ($.rules.failureRate == null || ($.rules.failureRate > 0 && $.rules.failureRate <= 1))
                && $.rules.minimumVolume >= 1 && $.rules.halfOpenProbes >= 1
                && $.rules.windowMs > 0 && $.rules.windowMs <= 2147483647
                && $.rules.cooldownMs > 0 && $.rules.cooldownMs <= 2147483647
                && $.rules.probeLeaseMs > 0 && $.rules.probeLeaseMs <= 2147483647'
        )
    ) as rule (field, wanted, is_met)
    where rule.is_met is not true
    limit 1;

    if found then
        raise exception 'Cannot exchange circuit breaker "%": %, received %',
            left(v_name, 200), v_wanted, left(v_received, 500)
            using errcode = 'HF020';
    end if;
end;
$$;

comment on function holdfast.require_circuit_breaker_reports(jsonb) is
    'Raises HF020 for reports that are none: then nothing of the call is written.';


-- Those who count for one breaker at the same time stand in a row here, each seeing what the one before has added:
-- else two of them, each short of the threshold, might pass it together unseen.
create or replace function holdfast.count_circuit_breaker_calls(
    p_report jsonb,
    out reason text,
    out failures bigint,
    out successes bigint
)
returns record
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text := p_report ->> 'name';
    v_rules jsonb := p_report -> 'rules';
    v_epoch bigint := (p_report ->> 'epoch')::bigint;
    v_failed bigint := (p_report ->> 'failures')::bigint;
    v_succeeded bigint := (p_report ->> 'successes')::bigint;
    v_window_ms float8 := greatest((v_rules ->> 'windowMs')::float8, 1);
    v_counts holdfast.circuit_breaker_counts;
    v_now timestamptz;
    v_start timestamptz;
    v_last bigint;
begin
    select c.* into v_counts from holdfast.circuit_breaker_counts c where c.name = v_name for update;

    if not found then
        insert into holdfast.circuit_breaker_counts (name, epoch, rules)
        values (v_name, v_epoch, v_rules)
        on conflict (name) do nothing;

        select c.* into v_counts from holdfast.circuit_breaker_counts c where c.name = v_name for update;
    end if;

    if v_counts.epoch > v_epoch then
        return;
    elsif v_counts.epoch < v_epoch then
        v_counts.epoch := v_epoch;
        v_counts.bucket_starts := '{}';
        v_counts.bucket_failures := '{}';
        v_counts.bucket_successes := '{}';
        v_counts.consecutive_failures := 0;
    end if;

    v_now := clock_timestamp();
    v_start := date_bin(greatest(v_window_ms / 10, 1) * interval '1 millisecond', v_now, 'epoch');
    v_last := cardinality(v_counts.bucket_starts);

    -- Isolates of two deployments may count in buckets of two lengths: what fits into the newest goes there.
    if v_last > 0 and v_counts.bucket_starts[v_last] >= v_start then
        v_counts.bucket_failures[v_last] := v_counts.bucket_failures[v_last] + v_failed;
        v_counts.bucket_successes[v_last] := v_counts.bucket_successes[v_last] + v_succeeded;
    else
        v_counts.bucket_starts := v_counts.bucket_starts[greatest(v_last - 22, 1):] || v_start;
        v_counts.bucket_failures := v_counts.bucket_failures[greatest(v_last - 22, 1):] || v_failed;
        v_counts.bucket_successes := v_counts.bucket_successes[greatest(v_last - 22, 1):] || v_succeeded;
    end if;

    v_counts.consecutive_failures := case
        when v_succeeded > 0 then (p_report ->> 'trailingFailures')::bigint
        else v_counts.consecutive_failures + v_failed
    end;

    update holdfast.circuit_breaker_counts c
    set epoch = v_counts.epoch,
        bucket_starts = v_counts.bucket_starts,
        bucket_failures = v_counts.bucket_failures,
        bucket_successes = v_counts.bucket_successes,
        consecutive_failures = v_counts.consecutive_failures,
        rules = v_rules,
        reported_at = v_now
    where c.name = v_name;

    -- A breaker opens on a failure, never on a success.
    if v_failed = 0 then
        return;
    end if;

    select coalesce(sum(b.failures), 0), coalesce(sum(b.successes), 0)
    into failures, successes
    from unnest(v_counts.bucket_starts, v_counts.bucket_failures, v_counts.bucket_successes)
        as b (start, failures, successes)
    where b.start > v_now - v_window_ms * interval '1 millisecond';

    reason := case
        when failures >= (v_rules ->> 'failureThreshold')::float8
            then format('%s failures within %s ms', failures, v_window_ms)
        when v_counts.consecutive_failures >= (v_rules ->> 'consecutiveFailures')::float8
            then format('%s failures in a row', v_counts.consecutive_failures)
        when failures + successes >= (v_rules ->> 'minimumVolume')::float8
            and failures >= (failures + successes) * (v_rules ->> 'failureRate')::float8
            then format('%s of %s calls failed within %s ms', failures, failures + successes, v_window_ms)
    end;
end;
$$;

comment on function holdfast.count_circuit_breaker_calls(jsonb) is
    'Adds the calls of a report to those of its epoch. reason: the rule that is reached with them, else null.';


create or replace function holdfast.apply_circuit_breaker_report(p_report jsonb)
returns bigint
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text := p_report ->> 'name';
    v_epoch bigint := (p_report ->> 'epoch')::bigint;
    v_cooldown_ms float8 := (p_report #>> '{rules,cooldownMs}')::float8;
    v_probes float8 := (p_report #>> '{rules,halfOpenProbes}')::float8;
    v_outcome text := p_report #>> '{probe,outcome}';
    v_wants boolean := coalesce((p_report ->> 'wantsProbe')::boolean, false);
    v_breaker holdfast.circuit_breakers;
    v_trip record;
    v_place bigint;
    v_token bigint;
    v_now timestamptz;
begin
    select b.* into v_breaker from holdfast.circuit_breakers b where b.name = v_name;

    if not found then
        insert into holdfast.circuit_breakers (name) values (v_name) on conflict (name) do nothing;
        select b.* into v_breaker from holdfast.circuit_breakers b where b.name = v_name;
    end if;

    if v_breaker.epoch = v_epoch and v_breaker.state = 'closed'
        and ((p_report ->> 'failures')::bigint > 0 or (p_report ->> 'successes')::bigint > 0)
    then
        v_trip := holdfast.count_circuit_breaker_calls(p_report);

        if v_trip.reason is not null and v_breaker.forced is null then
            perform from holdfast.circuit_breakers b
            where b.name = v_name and b.epoch = v_epoch
            for update;

            -- Else somebody was faster.
            if found then
                perform holdfast.change_circuit_breaker(
                    v_name, 'open', v_trip.reason, v_cooldown_ms, null, v_trip.failures, v_trip.successes
                );
            end if;
        end if;
    end if;

    if v_outcome is null and not v_wants then
        return null;
    end if;

    select b.* into v_breaker from holdfast.circuit_breakers b where b.name = v_name for update;

    if not found then
        return null;
    end if;

    v_now := clock_timestamp();
    v_place := array_position(v_breaker.probe_tokens, (p_report #>> '{probe,token}')::bigint);

    -- Whoever reports after the lease is not heard, whether the place was given to another or not.
    if v_breaker.probes_leased_until[v_place] <= v_now then
        v_place := null;
    end if;

    if v_place is not null and v_outcome = 'failed' then
        v_breaker := holdfast.change_circuit_breaker(v_name, 'open', 'A probe failed', v_cooldown_ms);
    elsif v_place is not null then
        v_breaker.probe_tokens := v_breaker.probe_tokens[:v_place - 1] || v_breaker.probe_tokens[v_place + 1:];
        v_breaker.probes_leased_until :=
            v_breaker.probes_leased_until[:v_place - 1] || v_breaker.probes_leased_until[v_place + 1:];

        update holdfast.circuit_breakers b
        set probe_tokens = v_breaker.probe_tokens,
            probes_leased_until = v_breaker.probes_leased_until,
            probes_succeeded = b.probes_succeeded + case when v_outcome = 'succeeded' then 1 else 0 end
        where b.name = v_name
        returning b.* into v_breaker;
    end if;

    -- Not only after a success: the options may ask for fewer than they did.
    if v_breaker.state = 'half_open' and v_breaker.probes_succeeded >= v_probes then
        v_breaker := holdfast.change_circuit_breaker(
            v_name, 'closed', format('Probes succeeded: %s', v_breaker.probes_succeeded), v_cooldown_ms
        );
    end if;

    if v_wants and v_breaker.state = 'open' and v_breaker.retry_at <= v_now then
        v_breaker := holdfast.change_circuit_breaker(v_name, 'half_open', 'The cooldown is over', v_cooldown_ms);
    end if;

    if not v_wants or v_breaker.state <> 'half_open' then
        return null;
    end if;

    -- Places whose lease is over are free.
    select coalesce(array_agg(p.token), '{}'), coalesce(array_agg(p.leased_until), '{}')
    into v_breaker.probe_tokens, v_breaker.probes_leased_until
    from unnest(v_breaker.probe_tokens, v_breaker.probes_leased_until) as p (token, leased_until)
    where p.leased_until > v_now;

    if cardinality(v_breaker.probe_tokens) + v_breaker.probes_succeeded >= v_probes then
        return null;
    end if;

    v_token := nextval('holdfast.circuit_breaker_tokens');

    update holdfast.circuit_breakers b
    set probe_tokens = v_breaker.probe_tokens || v_token,
        probes_leased_until = v_breaker.probes_leased_until
            || v_now + (p_report #>> '{rules,probeLeaseMs}')::float8 * interval '1 millisecond'
    where b.name = v_name;

    return v_token;
end;
$$;

comment on function holdfast.apply_circuit_breaker_report(jsonb) is
    'What one report changes. Returns the token of the probe that was granted, else null.';


create or replace function holdfast.probe_wait_ms(p_breaker holdfast.circuit_breakers, p_probes float8)
returns float8
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case
        when count(*) + p_breaker.probes_succeeded < p_probes then 0
        else coalesce(ceil(extract(epoch from min(p.leased_until) - clock_timestamp()) * 1000), 0)
    end
    from unnest(p_breaker.probes_leased_until) as p (leased_until)
    where p.leased_until > clock_timestamp()
$$;

comment on function holdfast.probe_wait_ms(holdfast.circuit_breakers, float8) is
    'Until a half-open breaker, of which that many probes may be made, has a place for one; 0: there is one now.';


create or replace function holdfast.exchange_circuit_breakers(p_reports jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
    v_report record;
    v_tokens jsonb := '{}'::jsonb;
begin
    perform holdfast.require_circuit_breaker_reports(p_reports);

    -- Only what may change something: the others cost no lock. In the order of the names, and the counts of a breaker
    -- before its row: whoever does the same at the same time waits, and is never waited for.
    for v_report in
        select r.report, r.nth
        from jsonb_array_elements(p_reports) with ordinality as r (report, nth)
        left join holdfast.circuit_breakers b on b.name = r.report ->> 'name'
        where case coalesce(b.state, 'closed')
                when 'closed' then (r.report ->> 'epoch')::bigint = coalesce(b.epoch, 1)
                    and ((r.report ->> 'failures')::bigint > 0 or (r.report ->> 'successes')::bigint > 0)
                when 'open' then (r.report ->> 'wantsProbe')::boolean and b.retry_at <= clock_timestamp()
                else r.report #>> '{probe,token}' is not null
                    or ((r.report ->> 'wantsProbe')::boolean
                        and holdfast.probe_wait_ms(b, (r.report #> '{rules,halfOpenProbes}')::float8) = 0)
            end
        order by r.report ->> 'name', r.nth
    loop
        v_tokens := v_tokens || jsonb_build_object(
            v_report.nth::text, holdfast.apply_circuit_breaker_report(v_report.report)
        );
    end loop;

    return (
        select coalesce(jsonb_agg(
            jsonb_build_object(
                'name', r.report -> 'name',
                'state', coalesce(b.state, 'closed'),
                'epoch', coalesce(b.epoch, 1),
                'forced', b.forced,
                'reason', b.reason,
                'openedAt', to_char(b.opened_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
                'retryInMs', case
                    when b.forced = 'open' then (r.report #> '{rules,cooldownMs}')::float8
                    when b.state = 'open' then ceil(greatest(extract(epoch from b.retry_at - clock_timestamp()) * 1000, 0))
                    when b.state = 'half_open' then holdfast.probe_wait_ms(b, (r.report #> '{rules,halfOpenProbes}')::float8)
                    else 0
                end,
                'successes', counted.successes,
                'failures', counted.failures,
                'probeToken', v_tokens -> r.nth::text
            )
            order by r.nth
        ), '[]')
        from jsonb_array_elements(p_reports) with ordinality as r (report, nth)
        left join holdfast.circuit_breakers b on b.name = r.report ->> 'name'
        left join holdfast.circuit_breaker_counts c on c.name = b.name and c.epoch = b.epoch
        cross join lateral (
            select coalesce(sum(k.failures), 0) as failures, coalesce(sum(k.successes), 0) as successes
            from unnest(c.bucket_starts, c.bucket_failures, c.bucket_successes) as k (start, failures, successes)
            where k.start > clock_timestamp() - greatest((r.report #> '{rules,windowMs}')::float8, 1) * interval '1 millisecond'
        ) as counted
    );
end;
$$;

comment on function holdfast.exchange_circuit_breakers(jsonb) is
    'Takes the reports of one isolate (BreakerReport[] of stores/breakerStore.ts) and answers with the states after them '
    '(BreakerStatus[]), in their order. A breaker with nothing to change is only read. Raises HF020 for a report that is '
    'none, and then writes nothing.';
