-- What: the functions that decide rate limits, with the formulas of rateLimitDecide.ts.
-- Why: a decision reads, compares and takes in one statement, by the clock of the database.
-- Who: the connection's own role. The API roles have no rights here.

-- Any question: several windows, of any kind, a block, a penalty, a look. Its numbers are explained at
-- decide_rate_limits; p_at is the place of its first. The setting keeps a plan that was made when the table was empty
-- from reading all of it later.
create or replace function holdfast.decide_rate_limit(p_key text, p_numbers bigint[], p_at bigint, p_since bigint)
returns bigint[]
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    v_cost bigint := p_numbers[p_at];
    v_asked bigint := p_numbers[p_at + 1];
    v_forced boolean := p_numbers[p_at + 2] = 1;
    v_block bigint := p_numbers[p_at + 3];
    v_windows bigint := p_numbers[p_at + 4];
    v_kind bigint;
    v_unit bigint;
    v_capacity bigint;
    v_row holdfast.rate_limits;
    v_old bigint[];
    v_new bigint[] := array[]::bigint[];
    v_place bigint := 1;
    v_slice bigint;
    v_taken bigint;
    v_available bigint;
    v_admitted bigint;
    v_blocked bigint;
    v_forget_at bigint := 0;
    v_now bigint;
begin
    loop
        if v_asked = 0 then
            select r.* into v_row from holdfast.rate_limits r where r.key = p_key;
            exit;
        end if;
        select r.* into v_row from holdfast.rate_limits r where r.key = p_key for no key update;
        exit when found;
        insert into holdfast.rate_limits (key, forget_at) values (p_key, 0) on conflict (key) do nothing;
    end loop;

    -- Not before the row is ours: whoever has waited for it would be refused what the one before has left.
    v_now := greatest(p_since, (date_part('epoch', clock_timestamp()) * 1000000)::bigint);

    v_blocked := greatest(coalesce(v_row.blocked_until, 0) - v_now, 0);
    v_admitted := case when v_blocked > 0 and not v_forced then 0 else v_asked end;
    v_old := coalesce(v_row.state, array[v_row.forget_at]);

    -- What stands before this call, in v_new, and how much each window has left.
    for v_window in 0 .. v_windows - 1 loop
        v_kind := p_numbers[p_at + 5 + v_window * 3];
        v_unit := p_numbers[p_at + 6 + v_window * 3];
        v_capacity := p_numbers[p_at + 7 + v_window * 3];
        if v_kind = 0 then
            v_new[v_place] := greatest(v_old[v_place], v_now);
            v_available := v_capacity - (v_new[v_place] - v_now + v_unit - 1) / v_unit;
            v_place := v_place + 1;
        elsif v_kind = 1 then
            if v_old[v_place] > v_now then
                v_new[v_place] := v_old[v_place];
                v_new[v_place + 1] := coalesce(v_old[v_place + 1], 0);
            else
                v_new[v_place] := v_now;
                v_new[v_place + 1] := 0;
            end if;
            v_available := v_capacity - v_new[v_place + 1];
            v_place := v_place + 2;
        else
            -- A clock that was set back waits in the slice in which it was.
            v_slice := greatest(v_now / v_unit, v_old[v_place]);
            v_new[v_place] := v_slice;
            v_taken := 0;
            for v_age in 0 .. 10 loop
                v_new[v_place + 1 + v_age] := case
                    when v_age >= v_slice - v_old[v_place]
                        then coalesce(v_old[v_place + 1 + v_age - (v_slice - v_old[v_place])], 0)
                    else 0
                end;
                v_taken := v_taken + v_new[v_place + 1 + v_age];
            end loop;
            v_available := v_capacity - v_taken;
            v_place := v_place + 12;
        end if;
        if not v_forced then
            v_admitted := least(v_admitted, greatest(v_available, 0) / v_cost);
        end if;
    end loop;

    -- The same cost from each window.
    v_taken := v_admitted * v_cost;
    v_place := 1;
    for v_window in 0 .. v_windows - 1 loop
        v_kind := p_numbers[p_at + 5 + v_window * 3];
        v_unit := p_numbers[p_at + 6 + v_window * 3];
        if v_kind = 0 then
            -- Penalties could owe more than numbers can tell: this ends in the year 2255. A double does not overflow,
            -- and is exact so far.
            v_new[v_place] := least(v_new[v_place]::float8 + v_taken::float8 * v_unit, 9000000000000000);
            v_forget_at := greatest(v_forget_at, v_new[v_place]);
            v_place := v_place + 1;
        elsif v_kind = 1 then
            v_new[v_place + 1] := least(v_new[v_place + 1] + v_taken, 9000000000000000);
            if v_new[v_place] <= v_now and v_taken > 0 then
                v_new[v_place] := v_now + v_unit;
            end if;
            v_forget_at := greatest(v_forget_at, v_new[v_place]);
            v_place := v_place + 2;
        else
            v_new[v_place + 1] := least(v_new[v_place + 1] + v_taken, 9000000000000000);
            for v_age in 0 .. 10 loop
                if v_new[v_place + 1 + v_age] > 0 then
                    v_forget_at := greatest(v_forget_at, (v_new[v_place] + 11 - v_age) * v_unit);
                    exit;
                end if;
            end loop;
            v_place := v_place + 12;
        end if;
    end loop;

    if v_admitted > 0
        or (v_admitted < v_asked and v_blocked = 0 and v_block > 0)
        or (v_admitted < v_asked and coalesce(v_row.refused_at, 0) <= v_now - 1000000) then
        if v_admitted < v_asked and v_blocked = 0 and v_block > 0 then
            v_blocked := v_block;
        end if;
        update holdfast.rate_limits r
        set forget_at = v_forget_at,
            blocked_until = case when v_blocked > 0 then v_now + v_blocked end,
            refused_at = case when v_admitted < v_asked then v_now else r.refused_at end,
            state = case when v_windows = 1 and p_numbers[p_at + 5] = 0 then null else v_new end
        where r.key = p_key;
    end if;

    return array[v_now, v_admitted, v_blocked] || v_new;
end;
$$;

comment on function holdfast.decide_rate_limit(text, bigint[], bigint, bigint) is
    'Decides one question of decide_rate_limits, locking its row, at p_since at the earliest. Gives the time, what was '
    'admitted, the microseconds it is still blocked for, and the state of each window.';


-- Locks rows in the order of the keys, so whoever asks for many keys in that order cannot meet a deadlock.
create or replace function holdfast.decide_rate_limits(p_keys text[], p_numbers bigint[])
returns bigint[]
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now bigint := date_part('epoch', clock_timestamp()) * 1000000;
    v_key text collate "C";
    v_last text collate "C" := '';
    v_at bigint := 1;
    v_windows bigint;
    v_need bigint;
    v_until bigint;
    v_arrival bigint;
    v_answer bigint[];
    v_admitted bigint[] := array[]::bigint[];
    v_blocked bigint[] := array[]::bigint[];
    v_states bigint[] := array[]::bigint[];
begin
    foreach v_key in array p_keys loop
        if v_key < v_last then
            raise exception 'Cannot decide rate limits: the keys are not in the order of their bytes'
                using errcode = 'HF030';
        end if;
        v_last := v_key;
        v_windows := p_numbers[v_at + 4];
        v_arrival := null;

        -- One GCRA window with enough left, which is nearly always: one statement.
        if v_windows = 1 and p_numbers[v_at + 5] = 0 and p_numbers[v_at + 1] > 0 and p_numbers[v_at + 2] = 0 then
            if p_numbers[v_at + 1] <= p_numbers[v_at + 7] / p_numbers[v_at] then
                v_need := p_numbers[v_at] * p_numbers[v_at + 1] * p_numbers[v_at + 6];
                v_until := v_now + p_numbers[v_at + 7] * p_numbers[v_at + 6];
                insert into holdfast.rate_limits as r (key, forget_at)
                values (v_key, v_now + v_need)
                on conflict (key) do update
                set forget_at = greatest(r.forget_at, v_now) + v_need
                where greatest(r.forget_at, v_now) + v_need <= v_until
                    and r.blocked_until is null
                returning r.forget_at
                into v_arrival;
            end if;
        end if;

        if v_arrival is not null then
            v_admitted := v_admitted || p_numbers[v_at + 1];
            v_blocked := v_blocked || 0::bigint;
            v_states := v_states || v_arrival;
        else
            v_answer := holdfast.decide_rate_limit(v_key, p_numbers, v_at, v_now);
            v_now := v_answer[1];
            v_admitted := v_admitted || v_answer[2];
            v_blocked := v_blocked || v_answer[3];
            v_states := v_states || v_answer[4:];
        end if;
        v_at := v_at + 5 + v_windows * 3;
    end loop;
    return v_now || v_admitted || v_blocked || v_states;
end;
$$;

comment on function holdfast.decide_rate_limits(text[], bigint[]) is
    'Decides the questions, each with all its windows or not at all. The keys in the order of their bytes; one may stand '
    'more than once. For each of them there are in p_numbers: cost, calls (0 only looks), 1 to take them in any case, '
    'microseconds to block for when one is refused, windows; and for each window 0 for gcra, 1 for fixed, 2 for sliding, '
    'the microseconds of a token, the window or a slice, and the most tokens. Gives the time, then for each key the calls '
    'admitted, then for each the microseconds it is still blocked for, then the states of the windows of each.';


-- One question for one GCRA window, with nothing to take apart.
create or replace function holdfast.decide_gcra_limit(
    p_key text,
    p_count bigint,
    p_cost bigint,
    p_block bigint,
    p_interval bigint,
    p_burst bigint
)
returns bigint[]
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now bigint := date_part('epoch', clock_timestamp()) * 1000000;
    v_need bigint;
    v_until bigint;
    v_arrival bigint;
begin
    if p_count between 1 and p_burst / p_cost then
        v_need := p_cost * p_count * p_interval;
        v_until := v_now + p_burst * p_interval;
        insert into holdfast.rate_limits as r (key, forget_at)
        values (p_key, v_now + v_need)
        on conflict (key) do update
        set forget_at = greatest(r.forget_at, v_now) + v_need
        where greatest(r.forget_at, v_now) + v_need <= v_until
            and r.blocked_until is null
        returning r.forget_at
        into v_arrival;
        if found then
            return array[v_now, p_count, 0, v_arrival];
        end if;
    end if;
    return holdfast.decide_rate_limit(
        p_key, array[p_cost, p_count, 0, p_block, 1, 0, p_interval, p_burst], 1, v_now
    );
end;
$$;

comment on function holdfast.decide_gcra_limit(text, bigint, bigint, bigint, bigint, bigint) is
    'As decide_rate_limits for one key with one GCRA window: calls, microseconds to block for, microseconds of a token and '
    'the most tokens.';


-- The same for many keys with the same window, in one statement, which locks its rows in the order of the keys. A key
-- whose calls are not all admitted is decided by itself then: its row is locked already.
create or replace function holdfast.decide_gcra_limits(
    p_keys text[],
    p_counts bigint[],
    p_cost bigint,
    p_block bigint,
    p_interval bigint,
    p_burst bigint
)
returns bigint[]
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now bigint := date_part('epoch', clock_timestamp()) * 1000000;
    v_unit bigint := p_cost * p_interval;
    v_until bigint := v_now + p_burst * p_interval;
    v_keys text[];
    v_arrivals bigint[];
    v_place bigint := 1;
    v_answer bigint[];
    v_admitted bigint[] := p_counts;
    v_blocked bigint[] := array_fill(0::bigint, array[cardinality(p_keys)]);
    v_states bigint[];
begin
    if not (1 <= all (p_counts) and p_burst / p_cost >= all (p_counts)) then
        raise exception 'Cannot decide rate limits: a key is asked for no call, or for more than are ever admitted at once'
            using errcode = 'HF030';
    end if;

    with decided as (
        insert into holdfast.rate_limits as r (key, forget_at)
        select a.key, v_now + a.count * v_unit
        from unnest(p_keys, p_counts) a (key, count)
        on conflict (key) do update
        set forget_at = greatest(r.forget_at, v_now) + (excluded.forget_at - v_now)
        where greatest(r.forget_at, v_now) + (excluded.forget_at - v_now) <= v_until
            and r.blocked_until is null
        returning r.key, r.forget_at
    )
    select array_agg(d.key), array_agg(d.forget_at)
    into v_keys, v_arrivals
    from decided d;

    if cardinality(v_arrivals) = cardinality(p_keys) then
        return v_now || v_admitted || v_blocked || v_arrivals;
    end if;

    for v_nth in 1 .. cardinality(p_keys) loop
        if p_keys[v_nth] = v_keys[v_place] then
            v_states[v_nth] := v_arrivals[v_place];
            v_place := v_place + 1;
        else
            v_answer := holdfast.decide_rate_limit(
                p_keys[v_nth], array[p_cost, p_counts[v_nth], 0, p_block, 1, 0, p_interval, p_burst], 1, v_now
            );
            v_now := v_answer[1];
            v_admitted[v_nth] := v_answer[2];
            v_blocked[v_nth] := v_answer[3];
            v_states[v_nth] := v_answer[4];
        end if;
    end loop;
    return v_now || v_admitted || v_blocked || v_states;
end;
$$;

comment on function holdfast.decide_gcra_limits(text[], bigint[], bigint, bigint, bigint, bigint) is
    'As decide_rate_limits for many keys on the same terms, with one GCRA window. The keys in the order of their bytes, '
    'each once, and for each at least one call and at most as many as are ever admitted at once.';
