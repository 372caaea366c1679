// A route of Vercel's.
export async function GET(request: Request) {
  const { searchParams } = new URL(request.url);
  return new Response(`Hello, ${searchParams.get('name') ?? 'World'}!`);
}

export async function POST(request: Request): Promise<Response> {
  const form = await request.formData();
  return Response.json({ name: form.get('name') }, { status: 201 });
}
