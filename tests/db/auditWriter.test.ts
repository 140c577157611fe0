/** Whatever a request says of itself, its write succeeds and is recorded, with what could be used of it. */
import { beforeAll, describe, expect, test } from 'vitest'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import { gaps, type Recorded, recorded, type Said, saying } from '../support/auditProbe.ts'
import { asCaller, openSql, type Sql, user } from '../support/sql.ts'

const ada = '0b7a6a1e-1111-4222-8333-444455556666'
const claimsOf = (claims: unknown) => ({ claims: JSON.stringify(claims) })
const headersOf = (headers: Record<string, unknown>) => ({ headers: JSON.stringify(headers) })
const deep = (levels: number) => '['.repeat(levels) + ']'.repeat(levels)
const megabyte = 'x'.repeat(1_000_000)

onEachPostgres('a recorded change', (pg) => {
  let admin: Sql
  let sql: Sql

  beforeAll(async () => {
    const database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    sql = openSql(database.url)
    await sql`create table public.probes (id bigint generated always as identity primary key, note text)`
    await sql`grant select, insert, update, delete on public.probes to anon, authenticated, service_role`
  })

  /** Writes while the request says this; gives what the trail has of it. */
  async function write(said: Said): Promise<Recorded> {
    const id = await saying(sql, { role: 'authenticated', ...said }, async (tx) => {
      const [row] = await tx`insert into public.probes (note) values ('written') returning id`
      return String(row!.id)
    })
    const changes = (await recorded(admin, 'public.probes')).filter(({ key }) => key === id)
    expect(changes).toHaveLength(1)
    expect(changes[0]!.details.row.new.note).toBe('written')
    expect(await gaps(admin)).toEqual([])
    return changes[0]!
  }

  describe('claims', () => {
    const unusable: [string, string | undefined][] = [
      ['were never set', undefined],
      ['are empty', ''],
      ['are null', 'null'],
      ['are a list', '[]'],
      ['are a text', '"x"'],
      ['are a number', '42'],
      ['are no JSON', '{'],
      ['are no JSON but long', megabyte],
      ['are nested 100,000 deep', deep(100_000)],
      ['hold a NUL', '{"sub": "a\\u0000b"}'],
      ['hold half a surrogate pair', '{"sub": "\\ud800"}'],
      ['have no sub', '{"role": "authenticated"}'],
      ['have a sub of null', '{"sub": null}'],
    ]
    test.each(unusable)('that %s leave the actor unknown', async (_, claims) => {
      const change = await write({ claims })
      expect(change).toMatchObject({ actorId: null, actorRole: 'authenticated' })
      if (claims && !isJson(claims)) expect(change.details.unreadable).toEqual(['claims'])
    })

    const subjects: [string, unknown, string][] = [
      ['a name', 'ada', 'ada'],
      ['empty', '', ''],
      ['a number', 5, '5'],
      ['true', true, 'true'],
      ['an object', { sub: [1] }, '{"sub": [1]}'],
      ['almost a UUID', `${ada} `, `${ada} `],
      ['unicode', 'ädä 🐘\u202e', 'ädä 🐘\u202e'],
      ['control characters', '\u0001\n\t"\\', '\u0001\n\t"\\'],
      ['SQL', `'; drop table public.probes; --`, `'; drop table public.probes; --`],
      ['1 MB', megabyte, 'x'.repeat(200)],
    ]
    test.each(subjects)('with a sub that is %s are told in the details', async (_, sub, told) => {
      const change = await write(claimsOf({ sub }))
      expect(change).toMatchObject({ actorId: null, actorRole: 'authenticated' })
      expect(change.details.actor).toBe(told)
    })

    test('with a UUID name the actor, however it is written', async () => {
      expect(await write(claimsOf({ sub: ada }))).toMatchObject({ actorId: ada })
      expect((await write(claimsOf({ sub: ada }))).details).not.toHaveProperty('actor')
      expect(await write(claimsOf({ sub: ada.toUpperCase() }))).toMatchObject({ actorId: ada })
    })

    test('cannot choose the role', async () => {
      expect(await write(claimsOf({ sub: ada, role: 'service_role' }))).toMatchObject({
        actorRole: 'authenticated',
      })
    })
  })

  describe('the address', () => {
    const addresses: [string, unknown, string | null][] = [
      ['one', '203.0.113.7', '203.0.113.7'],
      ['the last of a list, which the proxy added', '1.2.3.4, 203.0.113.7', '203.0.113.7'],
      ['forged in front of it', 'evil, 999.1.1.1,"; drop table x, 203.0.113.7', '203.0.113.7'],
      ['IPv6', '2001:db8::1', '2001:db8::1'],
      ['IPv6 with a port', '[2001:db8::1]:443', '2001:db8::1'],
      ['with a port', '203.0.113.7:51820', '203.0.113.7'],
      ['in spaces', '  203.0.113.7  ', '203.0.113.7'],
      ['behind a list of 10 kB', `${'1.2.3.4, '.repeat(1_200)}203.0.113.7`, '203.0.113.7'],
      ['a word', '1.2.3.4, evil', null],
      ['out of range', '999.1.1.1', null],
      ['empty', '', null],
      ['a comma', ',', null],
      ['a list of 10 kB of words', 'evil, '.repeat(1_700), null],
      ['a word of 1 MB', megabyte, null],
      ['a number', 5, null],
      ['null', null, null],
      ['an object', { ip: '203.0.113.7' }, null],
      ['a list of JSON', ['203.0.113.7'], null],
    ]
    test.each(addresses)('is read or left out: %s', async (_, forwarded, ip) => {
      const change = await write({
        ...headersOf({ 'x-forwarded-for': forwarded }),
        ...claimsOf({ sub: ada }),
      })
      expect(change).toMatchObject({ ip, actorId: ada })
    })
  })

  describe('headers', () => {
    const unusable = [
      '',
      'null',
      '[]',
      '"x"',
      '42',
      '{',
      megabyte,
      deep(100_000),
      '{"a": "\\u0000"}',
      '{"a": "\\udfff"}',
    ]
    test.each(unusable.map((text) => [text.slice(0, 20), text]))(
      'that are %j cost the actor nothing',
      async (_, headers) => {
        const change = await write({ headers, ...claimsOf({ sub: ada }) })
        expect(change).toMatchObject({ actorId: ada, userAgent: null, requestId: null, functionName: null })
        if (headers && !isJson(headers)) expect(change.details.unreadable).toEqual(['headers'])
      },
    )

    const texts: [string, unknown][] = [
      ['1 MB', megabyte],
      ['1 MB of emoji', '🐘'.repeat(250_000)],
      ['control characters', '\u0001\u001b[31m\r\nset-cookie: x'],
      ['a right-to-left override', '\u202egnirts'],
      ['an object', { nested: { deeper: ['x'.repeat(1_000)] } }],
      ['a number', 1e300],
      ['false', false],
      ['empty', ''],
    ]
    test.each(texts)('of %s are cut to what the columns promise', async (_, value) => {
      const change = await write(
        headersOf({ 'user-agent': value, 'x-request-id': value, 'x-function-name': value }),
      )
      const lengths = [change.userAgent, change.requestId, change.functionName].map((text) =>
        [...text ?? ''].length
      )
      expect(lengths[0]).toBeLessThanOrEqual(512)
      expect(lengths[1]).toBeLessThanOrEqual(200)
      expect(lengths[2]).toBeLessThanOrEqual(100)
      if (typeof value === 'string') expect(value.startsWith(change.requestId!)).toBe(true)
    })

    test('that come twice are read once', async () => {
      const headers =
        '{"x-request-id": "first", "x-request-id": "second", "x-forwarded-for": "evil", "x-forwarded-for": "1.2.3.4"}'
      expect(await write({ headers })).toMatchObject({ requestId: 'second', ip: '1.2.3.4' })
    })

    test('and claims that are both useless leave the change alone', async () => {
      const change = await write({ claims: '{', headers: deep(100_000) })
      expect(change).toMatchObject({ actorId: null, actorRole: 'authenticated', requestId: null })
      expect(change.details.unreadable).toEqual(['claims', 'headers'])
    })
  })

  test('of many rows has what is odd about its request in each of them', async () => {
    await saying(sql, { role: 'service_role', claims: '{"sub": "a robot"}', headers: '{' }, async (tx) => {
      await tx`insert into public.probes (note) values ('many'), ('many')`
      await tx`update public.probes set note = 'changed' where note = 'many'`
      await tx`delete from public.probes where note = 'changed'`
    })
    const changes = (await recorded(admin, 'public.probes')).filter(({ actorRole }) =>
      actorRole === 'service_role'
    )
    expect(changes.map(({ operation }) => operation))
      .toEqual(['INSERT', 'INSERT', 'UPDATE', 'UPDATE', 'DELETE', 'DELETE'])
    for (const { details: { row, ...odd } } of changes) {
      expect(row).toBeTypeOf('object')
      expect(odd).toEqual({ actor: 'a robot', unreadable: ['headers'] })
    }
    expect(await gaps(admin)).toEqual([])
  })

  describe('the role', () => {
    test.each(['anon', 'authenticated', 'service_role'] as const)('is %s where that wrote', async (role) => {
      const id = await asCaller(
        sql,
        { role },
        async (tx) => (await tx`insert into public.probes (note) values (${role}) returning id`)[0]!.id,
      )
      const change = (await recorded(admin, 'public.probes')).find(({ key }) => key === String(id))
      expect(change).toMatchObject({ actorRole: role, actorId: null })
    })

    test('is that of the connection where nobody took another', async () => {
      const [row] = await sql`insert into public.probes (note) values ('owner') returning id`
      const change = (await recorded(admin, 'public.probes')).find(({ key }) => key === String(row!.id))
      expect(change).toMatchObject({ actorRole: 'postgres', actorId: null })
    })

    test('is the caller inside functions that run with the rights of their owner', async () => {
      await sql.unsafe(`
        create function public.write_inner() returns bigint language sql security definer set search_path = '' as
          $$ insert into public.probes (note) values ('definer') returning id $$;
        create function public.write_probe() returns bigint language plpgsql security definer set search_path = '' as
          $$ begin return public.write_inner(); end $$;
        grant execute on function public.write_probe() to anon`)
      const [row] = await asCaller(sql, { role: 'anon' }, (tx) => tx`select public.write_probe() as id`)
      const change = (await recorded(admin, 'public.probes')).find(({ key }) => key === String(row!.id))
      expect(change).toMatchObject({ actorRole: 'anon', actorId: null })
    })

    test('of a customer stands at all that placing an order writes', async () => {
      await admin`insert into auth.users (id, email) values (${ada}, 'placing@example.com')`
      const orderId = crypto.randomUUID()
      await asCaller(
        sql,
        user(ada),
        (tx) =>
          tx`select private.place_order(${orderId}, '[{"sku": "ROPE-10", "quantity": 2}]', 'EUR',
          ${crypto.randomUUID()}, 'ch_audit', (select price_minor * 2 from public.products where sku = 'ROPE-10'))`,
      )
      const [order] = await recorded(admin, 'public.orders')
      expect(order).toMatchObject({
        operation: 'INSERT',
        key: orderId,
        actorId: ada,
        actorRole: 'authenticated',
      })
      const written = await admin`
        select object_identity as object, operation, actor_id as actor, actor_role as role
        from audit.database_changes where transaction_id = ${order!.transactionId} order by id`
      const by = { actor: ada, role: 'authenticated' }
      expect([...written]).toEqual([
        { object: 'public.orders', operation: 'INSERT', ...by },
        ...[
          { object: 'public.order_items', operation: 'INSERT', ...by },
          { object: 'public.products', operation: 'UPDATE', ...by },
        ].sort((a) => a.object === written[1]!.object ? -1 : 1),
        { object: 'public.payments', operation: 'INSERT', ...by },
      ])
    })
  })
})

function isJson(text: string): boolean {
  try {
    // PostgreSQL knows neither NUL nor half a pair, and no end of nesting.
    return /\\u(0000|d[89a-f])/i.test(text) || text.startsWith('[[[') ? false : JSON.parse(text) !== undefined
  } catch {
    return false
  }
}
