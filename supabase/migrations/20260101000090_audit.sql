-- What: the audit trail: who changed what and when, in monthly partitions that only grow.
-- Why: a change is answered for by a person, a request and a function, whatever path it took to the table.
-- Who: triggers write it. No API role has a right on any table here; admins read through the functions of a later chapter.

create schema if not exists audit;

comment on schema audit is
    'Who did what. Not exposed through the API; admins read it in Studio, by audit.* functions and by the function `admin`.';

revoke all on schema audit from public;

grant usage on schema audit to anon, authenticated, service_role;


create table audit.settings (
    only_row boolean primary key default true,
    retention interval not null default '90 days',
    -- squawk-ignore prefer-bigint-over-smallint
    trusted_proxy_hops smallint not null default 1,
    schemas text[] not null default '{public}',
    constraint there_is_one_row check (only_row),
    constraint a_month_is_kept_at_least check (retention >= '1 month'),
    constraint hops_are_few check (trusted_proxy_hops between 0 and 10)
);

comment on table audit.settings is 'How the trail is kept: one row. After a change call audit.refresh().';
comment on column audit.settings.only_row is 'Always true: there is one row.';
comment on column audit.settings.retention is 'How long changes are kept; whole months go when their last day is older.';
comment on column audit.settings.trusted_proxy_hops is
    'Whose entry of x-forwarded-for is believed, counted from the right, as TRUSTED_PROXY_HOPS of the functions; '
    '0: no address is recorded.';
comment on column audit.settings.schemas is 'Tables that are created in these are audited from their first row on.';

insert into audit.settings default values;

alter table audit.settings enable row level security;

create policy "Nobody sees the settings of the trail through the API"
    on audit.settings for all to anon, authenticated using (false) with check (false);


create sequence audit.change_ids;

comment on sequence audit.change_ids is 'Ids of changes: one sequence for all partitions, so that ids never repeat.';


create table audit.database_changes (
    id bigint not null default nextval('audit.change_ids'),
    occurred_at timestamptz not null,
    transaction_id bigint not null,
    actor_id uuid,
    actor_role text,
    ip inet,
    user_agent text,
    request_id text,
    function_name text,
    schema_name text not null,
    table_name text not null,
    object_identity text not null,
    operation text not null,
    primary_key text,
    details jsonb not null
)
partition by range (occurred_at);

-- Time and transactions only grow, so a few bytes for each 128 pages find a period, or what is not sealed yet.
create index database_changes_by_time on audit.database_changes
    using brin (occurred_at, transaction_id, id) with (autosummarize = on);

create index database_changes_by_id on audit.database_changes (id);

-- The history of one row. Equal keys, as '1' in many tables, or one row with a long history, share an entry's space;
-- a hash index would put them all into one ever longer chain.
create index database_changes_by_key on audit.database_changes (primary_key);

comment on table audit.database_changes is
    'One row for each changed row, each TRUNCATE, each DDL command and each recorded event. Only grows; whole months are '
    'dropped when audit.settings.retention is over.';
comment on column audit.database_changes.id is 'In order of writing; a transaction that was rolled back leaves a hole.';
comment on column audit.database_changes.occurred_at is 'When the statement had done its work, by the database''s clock.';
comment on column audit.database_changes.transaction_id is 'Equal for all changes that were committed together.';
comment on column audit.database_changes.actor_id is
    'sub of the JWT. One that is no UUID is in details -> ''actor''; null without a signed-in caller.';
comment on column audit.database_changes.actor_role is
    'The role that acted: anon, authenticated, service_role, or the role of the connection. Never the owner of a function.';
comment on column audit.database_changes.ip is 'Of the caller, as the nearest trusted proxy saw it.';
comment on column audit.database_changes.user_agent is 'As the request says, at most 512 characters.';
comment on column audit.database_changes.request_id is 'The id the client may quote, at most 200 characters.';
comment on column audit.database_changes.function_name is 'The edge function through which it came, if one.';
comment on column audit.database_changes.object_identity is 'Schema and name, quoted where SQL would need it: public.orders.';
comment on column audit.database_changes.operation is
    'INSERT, UPDATE, DELETE, TRUNCATE; DDL; EVENT for what audit.record and sign-ins tell.';
comment on column audit.database_changes.primary_key is
    'The value of the key column; a JSON array of several, each as text; null where the table has no key. '
    'After an UPDATE of the key itself: the new one.';
comment on column audit.database_changes.details is
    'row: {new} of an INSERT, {old} of a DELETE, {old, new} with the key and the changed columns of an UPDATE; '
    'ddl; event; beside them actor and unreadable where the request was odd.';

alter table audit.database_changes enable row level security;

create policy "Nobody sees the trail through the API"
    on audit.database_changes
    for all
    to anon, authenticated
    using (false)
    with check (false);


create or replace function audit.append_only()
returns trigger
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'Cannot % rows of %.%: the audit trail is append-only', lower(tg_op), tg_table_schema, tg_table_name
        using errcode = 'HF451',
            hint = 'Whole months leave it when audit.settings.retention is over.';
end;
$$;

comment on function audit.append_only() is 'Trigger: refuses whatever would change or remove a row of the trail.';

create trigger append_only before update or delete on audit.database_changes
    for each row execute function audit.append_only();

create trigger append_only_truncate before truncate on audit.database_changes
    for each statement execute function audit.append_only();


-- What a partition does not get from its parent: its own row level security and the guard against TRUNCATE.
create or replace function audit.guard_partition(p_partition regclass)
returns void
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('alter table %s enable row level security', p_partition);
    execute format(
        'create policy %I on %s for all to anon, authenticated using (false) with check (false)',
        'Nobody sees the trail through the API', p_partition
    );
    execute format(
        'create trigger append_only_truncate before truncate on %s '
        'for each statement execute function audit.append_only()',
        p_partition
    );
end;
$$;

comment on function audit.guard_partition(regclass) is 'Closes a new partition of the trail as its parent is closed.';


-- Months are those of UTC, so that no session's time zone moves a boundary.
create or replace function audit.partition_name(p_month date)
returns text
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select 'database_changes_' || to_char(p_month, 'YYYY_MM')
$$;

comment on function audit.partition_name(date) is 'Name of the partition of a month, in schema audit.';


create or replace function audit.partition_range(p_partition oid)
returns tstzrange
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select tstzrange(bound[1]::timestamptz, bound[2]::timestamptz)
    from pg_catalog.pg_class as c
    cross join regexp_match(
        pg_catalog.pg_get_expr(c.relpartbound, c.oid), $re$FROM \('([^']+)'\) TO \('([^']+)'\)$re$
    ) as bound
    where c.oid = p_partition
    and bound is not null
$$;

comment on function audit.partition_range(oid) is 'The time a partition of the trail holds; null for the default partition.';


create or replace function audit.make_partitions(p_ahead integer default 2)
returns integer
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_this_month date := date_trunc('month', clock_timestamp() at time zone 'UTC');
    v_month date;
    v_name text;
    v_made integer := 0;
begin
    -- Two runs at once would make the same month.
    perform pg_advisory_xact_lock(hashtext('audit.make_partitions'));
    -- Whoever writes waits for no more than this; the next run tries again.
    perform set_config('lock_timeout', '1s', true);

    if to_regclass('audit.database_changes_default') is null then
        create table audit.database_changes_default partition of audit.database_changes default;
        perform audit.guard_partition('audit.database_changes_default');
    end if;
    v_made := audit.name_default_partition();

    for v_month in
        select generate_series(v_this_month, v_this_month + make_interval(months => p_ahead), interval '1 month')
    loop
        continue when exists (
            select
            from pg_catalog.pg_inherits as i
            where i.inhparent = 'audit.database_changes'::regclass
            and audit.partition_range(i.inhrelid) @> (v_month::timestamp at time zone 'UTC')
        );
        -- Made first and attached then: attaching lets writers of the other months go on.
        v_name := audit.partition_name(v_month);
        execute format('create table audit.%I (like audit.database_changes including all)', v_name);
        execute format(
            'alter table audit.database_changes attach partition audit.%I for values from (%L) to (%L)',
            v_name, v_month || ' 00:00+00', (v_month + interval '1 month')::date || ' 00:00+00'
        );
        perform audit.guard_partition(format('audit.%I', v_name)::regclass);
        v_made := v_made + 1;
    end loop;
    return v_made;
end;
$$;

comment on function audit.make_partitions(integer) is
    'Makes the partitions of this month and of p_ahead more, as far as they are missing. Returns how many it made. '
    'Safe to call at any time; waits at most a second for a lock.';


-- Rows that came while no month was made for them stay where they are: their partition gets the name of their months.
create or replace function audit.name_default_partition()
returns integer
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_first date;
    v_end date;
    v_name text;
begin
    select date_trunc('month', min(d.occurred_at) at time zone 'UTC'),
        date_trunc('month', max(d.occurred_at) at time zone 'UTC') + interval '1 month'
    into v_first, v_end
    from audit.database_changes_default as d;

    if v_first is null then
        return 0;
    end if;
    v_name := audit.partition_name(v_first) || '_late';
    alter table audit.database_changes detach partition audit.database_changes_default;
    execute format('alter table audit.database_changes_default rename to %I', v_name);
    execute format(
        'alter table audit.database_changes attach partition audit.%I for values from (%L) to (%L)',
        v_name, v_first || ' 00:00+00', v_end || ' 00:00+00'
    );
    create table audit.database_changes_default partition of audit.database_changes default;
    perform audit.guard_partition('audit.database_changes_default');
    return 1;
exception
    -- Rows of a month that lies between two that were made, or of no month at all: the default partition keeps them.
    when invalid_object_definition or datetime_field_overflow or duplicate_table then return 0;
end;
$$;

comment on function audit.name_default_partition() is
    'Turns the default partition into that of the months whose rows it holds. Returns 1 if it did, 0 if there was nothing to do.';

select audit.make_partitions();

select cron.schedule('holdfast_audit_partitions', '17 * * * *', 'select audit.make_partitions()');
