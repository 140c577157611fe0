-- What: effects outside the database (a charge) that are to be undone unless their transaction commits.
-- Why: PostgreSQL takes back its own rows only; whoever would take back the rest may die first.
-- Who: the connection's own role, beside the caller's work. The API roles have no rights here; service_role reads.

create sequence holdfast.compensation_positions;

comment on sequence holdfast.compensation_positions is 'The order in which effects were recorded; they are undone backwards.';


create table holdfast.compensations (
    id uuid primary key default gen_random_uuid(),
    transaction_id uuid not null,
    position bigint not null default nextval('holdfast.compensation_positions'),
    function_name text not null,
    name text not null,
    args jsonb not null,
    resume_key text,
    status text not null default 'pending',
    resumed boolean not null default false,
    attempts bigint not null default 0,
    lease_token bigint not null default 0,
    due_at timestamptz not null,
    last_error text,
    caller_role text not null,
    caller_id text,
    request_id text,
    recorded_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    constraint status_is_known check (
        status in ('pending', 'running', 'retryable', 'undone', 'discarded', 'settled')
    ),
    -- Whoever finds a pending one may take it for an effect that nobody has begun to undo.
    constraint pending_ones_were_never_begun check (status <> 'pending' or attempts = 0),
    constraint ended_ones_say_when check (
        (status in ('undone', 'discarded', 'settled')) = (ended_at is not null)
    ),
    constraint function_name_can_be_called check (function_name ~ '^[A-Za-z0-9_-]{1,100}$'),
    constraint name_is_not_empty check (name <> '')
);

-- One effect of a name and key at a time: the next attempt takes it over, or waits until it is undone.
create unique index compensations_to_resume
    on holdfast.compensations (function_name, name, resume_key)
    where status not in ('undone', 'settled') and resume_key is not null;

create index compensations_due on holdfast.compensations (due_at) where status in ('pending', 'running', 'retryable');

create index compensations_by_transaction on holdfast.compensations (transaction_id, position);

create index compensations_to_purge on holdfast.compensations (ended_at) where status in ('undone', 'settled');

comment on table holdfast.compensations is
    'One row for each effect whose transaction has not committed. The commit deletes it; otherwise the effect is undone '
    'and the row kept for holdfast.compensation_retention(). discarded: undoing it failed '
    'holdfast.compensation_max_attempts() times and somebody has to look; holdfast.retry_compensation(id) tries again.';
comment on column holdfast.compensations.id is 'The effect''s key: what the outside service gets as its idempotency key.';
comment on column holdfast.compensations.transaction_id is
    'Whose commit settles it. An attempt that takes the effect over moves it, and with it the right to commit.';
comment on column holdfast.compensations.position is 'Within a transaction the greatest is undone first.';
comment on column holdfast.compensations.function_name is 'Which function declares the handler.';
comment on column holdfast.compensations.name is 'Which handler undoes it.';
comment on column holdfast.compensations.args is 'What the handler is given, as first recorded.';
comment on column holdfast.compensations.resume_key is 'By which a later attempt finds it, to take it over instead of acting anew.';
comment on column holdfast.compensations.status is
    'pending: nobody has begun to undo it; running: somebody undoes it, until due_at; retryable: undoing it failed and is '
    'due again at due_at; undone; discarded; settled: there is nothing to undo any more, and an earlier owner is to find that out.';
comment on column holdfast.compensations.resumed is 'A later attempt took it over.';
comment on column holdfast.compensations.attempts is 'How often undoing it was begun.';
comment on column holdfast.compensations.lease_token is 'Grows with each lease; only its holder may say how the attempt ended.';
comment on column holdfast.compensations.due_at is
    'From then on the sweep may undo it. While somebody does: the end of their lease.';
comment on column holdfast.compensations.last_error is 'Why the last attempt failed.';
comment on column holdfast.compensations.caller_role is 'The role its transaction ran as.';
comment on column holdfast.compensations.caller_id is 'The user, where one was signed in.';
comment on column holdfast.compensations.request_id is 'The request that recorded it last.';
comment on column holdfast.compensations.recorded_at is 'Before the effect, by the database''s clock; anew when it is taken over.';
comment on column holdfast.compensations.ended_at is 'When it was undone or discarded.';

alter table holdfast.compensations enable row level security;

create policy "Nobody sees compensations through the API"
    on holdfast.compensations
    for all
    to anon, authenticated
    using (false)
    with check (false);

grant select on holdfast.compensations to service_role;


create or replace function holdfast.compensation_grace()
returns interval
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select interval '60 seconds'
$$;

comment on function holdfast.compensation_grace() is
    'How long after the deadline of its transaction an effect is left alone: the transaction, or the next attempt, may still settle it.';


-- A transaction in repeatable read or serializable cannot see, hence not delete, what was recorded after its snapshot.
-- There its books decide: whoever takes such an effect away first closes them.
create or replace function holdfast.bar_transaction(p_id uuid)
returns text
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_status text;
begin
    select t.status into v_status
    from holdfast.transactions as t
    where t.id = p_id and t.isolation <> 'read committed'
    for update skip locked;

    if not found then
        return case
            when exists (
                select from holdfast.transactions as t where t.id = p_id and t.isolation <> 'read committed'
            ) then 'busy'
            else 'barred'
        end;
    end if;

    if v_status in ('open', 'abandoned') then
        update holdfast.transactions as t
        set status = 'rolled_back', ended_at = clock_timestamp()
        where t.id = p_id;
    end if;

    return case v_status when 'committed' then 'committed' else 'barred' end;
end;
$$;

comment on function holdfast.bar_transaction(uuid) is
    'Before an effect is taken from its transaction. barred: it cannot settle the effect any more (read committed needs '
    'no more for that than the row itself); committed: it has, without seeing the row; busy: it is committing.';


create or replace function holdfast.record_compensation(
    p_transaction_id uuid,
    p_timeout_ms bigint,
    p_function_name text,
    p_name text,
    p_args jsonb,
    p_resume_key text,
    p_caller_role text,
    p_caller_id text,
    p_request_id text,
    out outcome text,
    out effect_key uuid
)
returns record
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
    v_due_at timestamptz;
    v_status text;
    v_owner uuid;
begin
    loop
        v_due_at := clock_timestamp() + p_timeout_ms * interval '1 millisecond' + holdfast.compensation_grace();

        -- Waits for a commit that settles it, and for a claim.
        select c.id, c.status, c.transaction_id into effect_key, v_status, v_owner
        from holdfast.compensations as c
        where c.function_name = p_function_name
            and c.name = p_name
            and c.resume_key = p_resume_key
            and c.status not in ('undone', 'settled')
        for update;

        if not found then
            insert into holdfast.compensations as c (
                transaction_id, function_name, name, args, resume_key, due_at, caller_role, caller_id, request_id
            )
            values (
                p_transaction_id, p_function_name, p_name, p_args, p_resume_key, v_due_at, p_caller_role,
                left(p_caller_id, 200), left(p_request_id, 200)
            )
            on conflict (function_name, name, resume_key)
            where status not in ('undone', 'settled') and resume_key is not null
            do nothing
            returning c.id into effect_key;

            if found then
                outcome := 'recorded';
                return;
            end if;
            -- Another attempt recorded it in between.
            continue;
        end if;

        if v_status <> 'pending' then
            outcome := case v_status when 'discarded' then 'discarded' else 'undoing' end;
            return;
        end if;

        if v_owner <> p_transaction_id then
            case holdfast.bar_transaction(v_owner)
                when 'busy' then
                    outcome := 'busy';
                    return;
                when 'committed' then
                    update holdfast.compensations as c
                    set status = 'settled', ended_at = clock_timestamp()
                    where c.id = effect_key;
                    continue;
                else
                    null;
            end case;
        end if;

        update holdfast.compensations as c
        set transaction_id = p_transaction_id,
            resumed = c.resumed or v_owner <> p_transaction_id,
            position = nextval('holdfast.compensation_positions'),
            due_at = greatest(c.due_at, v_due_at),
            recorded_at = clock_timestamp(),
            caller_role = p_caller_role,
            caller_id = left(p_caller_id, 200),
            request_id = left(p_request_id, 200)
        where c.id = effect_key;

        outcome := 'resumed';
        return;
    end loop;
end;
$$;

comment on function holdfast.record_compensation(uuid, bigint, text, text, jsonb, text, text, text, text) is
    'Before an effect happens. recorded: it is new; resumed: an earlier attempt with this resume key may have caused it, '
    'and can commit no more; undoing: it is being undone, to be asked again later; busy: the earlier attempt is '
    'committing; discarded: it could not be undone, and somebody has to look.';


-- The index keeps a serializable transaction from conflicting with every other that settles.
create or replace function holdfast.settle_compensations(p_transaction_id uuid, p_effect_keys uuid[])
returns void
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    v_count bigint;
    v_updated bigint;
begin
    delete from holdfast.compensations as c
    where c.id = any (p_effect_keys)
        and c.transaction_id = p_transaction_id
        and c.status = 'pending'
        and not c.resumed;

    get diagnostics v_count = row_count;

    if v_count = cardinality(p_effect_keys) then
        return;
    end if;

    -- Whoever had it before may not have begun, and must find it taken then.
    update holdfast.compensations as c
    set status = 'settled', ended_at = clock_timestamp()
    where c.id = any (p_effect_keys)
        and c.transaction_id = p_transaction_id
        and c.status = 'pending';

    get diagnostics v_updated = row_count;

    if v_count + v_updated = cardinality(p_effect_keys) then
        return;
    end if;

    -- The others were recorded after this transaction's snapshot: its books settle them (see bar_transaction).
    if not exists (
        select
        from holdfast.compensations as c
        where c.id = any (p_effect_keys)
            and not (c.transaction_id = p_transaction_id and c.status = 'settled')
    )
        and exists (
            select
            from holdfast.transactions as t
            where t.id = p_transaction_id
                and t.isolation = current_setting('transaction_isolation')
                and t.isolation <> 'read committed'
        )
    then
        return;
    end if;

    raise exception 'Cannot commit: an effect of the transaction was taken over, or is being undone'
        using errcode = 'HF002';
end;
$$;

comment on function holdfast.settle_compensations(uuid, uuid[]) is
    'In the transaction itself, with its commit: its effects stay. Raises HF002 unless each is still its own and '
    'nobody has begun to undo it.';


create or replace function holdfast.withdraw_compensation(p_transaction_id uuid, p_effect_key uuid)
returns boolean
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from holdfast.compensations as c
    where c.id = p_effect_key
        and c.transaction_id = p_transaction_id
        and c.status = 'pending'
        and not c.resumed;

    if found then
        return true;
    end if;

    update holdfast.compensations as c
    set status = 'settled', ended_at = clock_timestamp()
    where c.id = p_effect_key
        and c.transaction_id = p_transaction_id
        and c.status = 'pending';

    return found;
end;
$$;

comment on function holdfast.withdraw_compensation(uuid, uuid) is
    'The effect is certain not to have happened, and there is nothing to undo. False where it is not this transaction''s '
    'any more, or somebody has begun to undo it.';
