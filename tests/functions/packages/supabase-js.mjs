/*---
{ "package": "@supabase/supabase-js", "version": "2.109.0", "tree": "http", "needs": ["upstream"],
  "exercises": "query building, filters, errors of PostgREST, against a local endpoint of its shape",
  "env": { "UPSTREAM": "{upstream}" },
  "expect": { "json": { "url": "/rest/v1/people?select=id%2Cname&age=gte.18&order=name.asc", "key": "anon", "error": "PGRST116" } } }
---*/
import { createClient } from "@supabase/supabase-js";

const supabase = createClient(process.env.UPSTREAM, "anon", { auth: { persistSession: false } });

export default async () => {
  const { data } = await supabase.from("people").select("id,name").gte("age", 18).order("name");
  const { error } = await supabase.from("missing").select().single();
  return { url: data[0].url, key: data[0].key, error: error.code };
};
