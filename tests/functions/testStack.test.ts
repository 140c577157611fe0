/** What the other files of this folder start from: a whole stack on a database of its own, and its clients. */
import { expect, test } from 'vitest'
import { demoClient, guestClient, newUser, serviceClient } from '../support/client.ts'
import { testStack } from '../support/stack.ts'
import { openSql } from '../support/sql.ts'

test('two stacks in one process share no port and no database', async () => {
  const [one, two] = await Promise.all([testStack(), testStack()])
  expect(new Set([one.port, two.port, one.db.name, two.db.name]).size).toBe(4)
  const grace = await newUser(one)
  const known = await openSql(two.db.adminUrl)`select from auth.users where email = ${grace.email}`
  expect(known).toHaveLength(0)
  await Promise.all([one.close(), two.close()])
  await expect(fetch(one.url)).rejects.toThrow()
})

test('the demo users of the seed can sign in, guests and the service have their roles', async () => {
  const stack = await testStack()
  const [ada, admin] = await Promise.all([demoClient(stack, 'ada'), demoClient(stack, 'admin')])
  expect(ada.email).toBe('ada@example.com')
  expect(ada.userId).not.toBe(admin.userId)
  const guest = await guestClient(stack).from('products').select('sku')
  expect(guest.error).toBeNull()
  expect(guest.data?.length).toBeGreaterThan(0)
  const hidden = await guestClient(stack).from('orders').select('id')
  expect(hidden.error?.code).toBe('42501')
  const all = await serviceClient(stack).from('orders').select('id')
  expect(all.error).toBeNull()
})

test('using the API changes no grant: what the migrations have not opened stays closed', async () => {
  const stack = await testStack()
  const admin = openSql(stack.db.adminUrl)
  const grants = () =>
    admin`
    select oid::regclass::text as relation, relacl::text as grants from pg_class
    where relkind in ('r', 'p', 'v', 'S') and relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
    order by relation`
  const defaults = () =>
    admin`select defaclrole, defaclnamespace, defaclobjtype, defaclacl::text from pg_default_acl`
  const before = [await grants(), await defaults()]
  await guestClient(stack).from('products').select('sku')
  await (await demoClient(stack, 'ada')).client.from('orders').select('id')
  expect([await grants(), await defaults()]).toEqual(before)
})
